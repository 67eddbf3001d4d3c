"""Names that classes have in the world's scripts."""

ORDINARY = {
    "empty": "",
    "French": "caf\u00e9",
    "XML": "a & <b>",
    "Persian, with a joiner": "\u0645\u06cc\u200c\u062e",
    "Hebrew, with a mark of direction": "\u05e9\u05dc\u05d5\u05dd\u200f",
    "Arabic, with a number sign": "\u0600\u0661",
    "Mongolian, with a vowel separator": "\u182e\u1823\u1829\u180e",
    "Sinhala": "\u0d9a\u0dca\u200d\u0dc2",
    "Khmer, with a space of no width": "\u1780\u200b\u1781",
    "German, with a soft hyphen": "Zu\u00adcker",
    "Japanese": "\u65e5\u672c\u3000\u8a9e",
    "a family": "\U0001f468\u200d\U0001f469",
    "a heart in red": "\u2764\ufe0f",
    "the flag of England": "\U0001f3f4" + "".join(chr(0xE0000 + ord(each)) for each in "gbeng") + "\U000e007f",
}
