"""Words, names and longer texts the gallery is filled with, awkward ones included."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about: its type, title and the parts it falls into."""

    type_slug: str
    title: str
    categories: tuple[str, ...]


SUBJECTS = (
    Subject("wedding", "Anna & Jonas", ("Getting ready", "Ceremony", "Party")),
    Subject("wedding", "Zoë ❤️ Müller's Hochzeit", ("Trauung", "Gäste", "Fest")),
    Subject("birthday", "Grandma Rose turns 90 🎂", ("Guests", "Cake")),
    Subject("corporate", "Harbour Lights Summit", ("Talks", "Evening")),
    Subject("wedding", "حفل زفاف ليلى وكريم", ("Ceremony", "Dance")),
    Subject("portrait", "Family Okafor in the park", ("Together", "Children")),
    Subject("wedding", "Siobhán O'Neill + Max", ("Church", "Dinner", "Dance")),
    Subject("birthday", "Pool party — Theo is 8", ("Games", "Presents")),
    Subject("corporate", "Nordwind annual report", ("Portraits", "Site")),
    Subject("portrait", "Newborn: Mia", ("Studio", "Home")),
    Subject("wedding", "花子と太郎 結婚式", ("Shrine", "Reception")),
    Subject("corporate", "Spring fair 'Vélo & Vous'", ("Stands", "Visitors")),
)

EVENT_TYPES = (
    ("wedding", "Wedding", "💍"),
    ("birthday", "Birthday", "🎂"),
    ("corporate", "Company", "🏢"),
    ("portrait", "Portrait", "📷"),
)

COMMENTS = (
    "Lovely!",
    "Can we have this one in black and white? 🖤",
    "צילום נהדר, תודה רבה",
    "هذه صورتي المفضلة",
    "Grandpa's smile 😀👨‍👩‍👧‍👦",
    "Please remove the lamp; it says \"exit\" -- twice; 'quoted' \\ backslash",
    "Zeile eins\nZeile zwei\r\nZeile drei\tmit Tabulator",
    "<b>not bold</b> & not & an entity",
    "e\u0301 is not \u00e9 to a computer",
    "",
)

GUESTS = ("Ada", "Björn", "Chloé", "Đorđe", "Eleni", "Fatima", "Győző", "李雷", "O'Hara")

USER_AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36"
    " (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:129.0) Gecko/20100101 Firefox/129.0",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36"
    " (KHTML, like Gecko) Chrome/127.0.0.0 Mobile Safari/537.36",
)

PAGES = ("imprint", "privacy", "terms", "about")

_SENTENCES = (
    "We meet an hour before the first guests arrive and walk the rooms.",
    "Fotos dürfen privat geteilt werden, *nicht* gewerblich.",
    "Photos stay online for **twelve months**; after that they are archived.",
    "| size | price |\n|---|---|\n| 13x18 | 4,50 € |\n| 30x45 | 19,00 € |",
    "> The best light is the one you have. ☀️",
    "كل الصور محفوظة بجودة كاملة.",
    "- [x] contract signed\n- [ ] playlist for the band",
    "```\nsudo rm -rf /  # a joke in a code block; ${NOT} {{ a }} %template%\n```",
)


def markdown(random: Random, paragraphs: int) -> str:
    """Return a text of some length with tables, lists, right-to-left and emoji."""
    parts = ["# Welcome 🎉"]
    parts += [random.choice(_SENTENCES) for _ in range(paragraphs)]
    return "\n\n".join(parts) + "\n"


def bcrypt_like(random: Random) -> str:
    """Return something shaped like a bcrypt hash that no password opens."""
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "$2b$12$" + "".join(random.choices(alphabet, k=53))


def token(random: Random) -> str:
    """Return 64 hex digits."""
    return random.randbytes(32).hex()


def ip_address(random: Random) -> str:
    """Return an address from the ranges kept for documentation."""
    if random.random() < 0.2:
        return f"2001:db8::{random.randrange(65536):x}:{random.randrange(65536):x}"
    return f"203.0.113.{random.randrange(1, 255)}"
