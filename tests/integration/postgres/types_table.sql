CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN email AS text CHECK (VALUE ~ '@');
CREATE TYPE place AS (street text, number int);
CREATE TABLE types (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, small smallint, big bigint, num numeric, price numeric(12,4),
  real_ real, dbl double precision, flag boolean, txt text, vc varchar(40), ch char(5), raw bytea, day date, t time,
  tz timetz, ts timestamp, tstz timestamptz, iv interval, code uuid, j json, jb jsonb, arr int[], tags text[], span int4range,
  net inet, bits bit varying(9), x tsvector, m mood, mail email, where_ place, pt point,
  doubled int GENERATED ALWAYS AS (small * 2) STORED
);
INSERT INTO types (small, big, num, price, real_, dbl, flag, txt, vc, ch, raw, day, t, tz, ts, tstz, iv, code, j, jb, arr,
  tags, span, net, bits, x, m, mail, where_, pt) VALUES
(32767, 4611686018427387903, 12345678901234567890123456789012345678.000100, 1.5, 0.1, 0.30000000000000004, true,
 E'tab\t nl\n cr\r bs\\ vt\x0b bell\x07 esc\x1b q" n\\N u😀 \\.', '', 'ab', decode('00ff0a5c09', 'hex'), '2024-02-29',
 '24:00:00', '23:59:59.123456+02', '2024-01-01 00:00:00.000001', '1999-12-31 23:59:59.9+05:30', '1 year -3 days 04:05:06.7',
 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1, "a": 2.0,  "b":1e400}', '{"a": 1, "a": 2.00}', '[2:3]={7,8}',
 ARRAY['a,"b"', NULL, '{}', 'NULL'], '[1,5)', '::1/64', B'101', 'fat:2 cat:1,3A', 'happy', 'a@b', ROW('Str, "eet"', 7),
 '(1.5,-2)'),
(-32768, -9223372036854775808, 'NaN', 'NaN', 'NaN', 'Infinity', false, 'NULL', E'\\N', '', '', '0044-03-15 BC',
 '00:00:00', '00:00:00-15:59', 'infinity', '-infinity', '-178000000 years', '00000000-0000-0000-0000-000000000000',
 'null', 'null', '{}', '{{a,b},{c,d}}', 'empty', '10.0.0.0/8', '', '', 'sad', '@', ROW(NULL, NULL), '(0,0)'),
(0, 0, '-0.00000000000000000000000001', 0, '-0', '-Infinity', NULL, '', NULL, NULL, NULL, 'infinity', NULL, NULL,
 '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999+00', '0', NULL, '  [1, 2 ]  ', '[1.10]', '{{1,2},{3,NULL}}', '{}',
 '(,)', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
