CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE SCHEMA "odd; schema ""x""";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN email AS text CHECK (VALUE ~ '@');
CREATE TYPE place AS (street text, number int);
CREATE TABLE events (
  id serial PRIMARY KEY, name varchar(80) NOT NULL, hero_photo_id int, parent_id int REFERENCES events,
  at timestamptz DEFAULT now(), m mood, mail email, where_ place, span int4range, tags text[], extra jsonb,
  code uuid, price numeric(12,4), big bigint, real_ real, dbl double precision, flag bool, day date, t time,
  iv interval, raw bytea, net inet, bits bit varying(9), x tsvector, doubled bigint GENERATED ALWAYS AS (big * 2) STORED
);
CREATE TABLE photos (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id int NOT NULL REFERENCES events ON DELETE CASCADE,
  path text UNIQUE, size int CHECK (size >= 0)
);
ALTER TABLE events ADD FOREIGN KEY (hero_photo_id) REFERENCES photos DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE logs (at timestamptz NOT NULL, what text, PRIMARY KEY (at, what)) PARTITION BY RANGE (at);
CREATE TABLE logs_2025 PARTITION OF logs FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE logs_rest PARTITION OF logs DEFAULT;
CREATE TABLE base (a int PRIMARY KEY);
CREATE TABLE derived (b text) INHERITS (base);
CREATE TABLE "odd; schema ""x"""."-t
 'able'" ("c'ol; DROP" int, "ü ""q""" text);
CREATE TABLE nothing ();
CREATE UNLOGGED TABLE sessions (k text PRIMARY KEY, v text);
CREATE TABLE secret_rows (id int PRIMARY KEY, who text);
ALTER TABLE secret_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY only_mine ON secret_rows USING (who = current_user);
CREATE VIEW happy AS SELECT * FROM events WHERE m = 'happy';
CREATE MATERIALIZED VIEW per_event AS SELECT event_id, count(*) AS photos FROM photos GROUP BY event_id;
CREATE INDEX partial ON photos (size) WHERE size > 1000;
CREATE SEQUENCE "Free Standing" START 7 INCREMENT -2 MINVALUE -100 MAXVALUE 100;
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
/* lines that begin like commands of psql
\restrict nothing
\unrestrict nothing
*/
  NEW.name := NEW.name || '!'; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION touched();
COMMENT ON TABLE photos IS 'what it''s all about';
INSERT INTO events (name, at, m, mail, where_, span, tags, extra, code, price, big, real_, dbl, flag, day, t, iv, raw,
  net, bits, x) SELECT 'Event ' || n || E'\t\n\\N ü 😀', timestamptz '2026-01-01' + n * interval '1 hour', 'happy',
  'a@b', ROW('Street'::text, n)::place, int4range(n, n + 5), ARRAY['a,"b"', NULL], '{"a": 1, "a": 2.0}',
  md5(n::text)::uuid, n / 7.0, n * 1000000000000, 0.1 * n, 0.1::float8 + 0.2, n % 2 = 0, '4713-01-01 BC', '24:00:00',
  '1 year -3 days', decode('00ff0a5c', 'hex'), '::1/64', B'101', 'fat:2 cat:1,3A' FROM generate_series(1, 60) n;
INSERT INTO events (name, at, dbl, price) VALUES ('infinite', 'infinity', 'NaN', 'NaN');
INSERT INTO photos (event_id, path, size)
  SELECT 1 + n % 60, '/p/' || n || '.jpg', n FROM generate_series(1, 3000) n;
UPDATE events SET hero_photo_id = id, parent_id = CASE WHEN id > 1 THEN id - 1 END WHERE id <= 60;
DELETE FROM photos WHERE id > 2990;
INSERT INTO logs SELECT timestamptz '2025-06-01' + n * interval '1 day', 'log ' || n FROM generate_series(1, 400) n;
INSERT INTO base VALUES (1);
INSERT INTO derived VALUES (2, 'x');
INSERT INTO "odd; schema ""x"""."-t
 'able'" VALUES (1, E'\\.'), (NULL, '');
INSERT INTO sessions VALUES ('k', 'v');
INSERT INTO secret_rows VALUES (1, 'somebody');
SELECT nextval('"Free Standing"');
SELECT lo_from_bytea(0, decode(repeat('c0ffee', 50000), 'hex'));
REFRESH MATERIALIZED VIEW per_event
