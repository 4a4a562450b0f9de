#!/usr/bin/env python3
"""Writes orders.csv: about 4,000 orders as a small shop's export really looks.

Deterministic, by a generator of its own rather than `random`, whose results may change between versions.
Run it in this folder: python3 make_orders.py > orders.csv
"""

import sys

STATE = 20250307


def below(limit):
    """A number from 0 to limit - 1."""
    global STATE
    STATE = (STATE * 6364136223846793005 + 1442695040888963407) % 2**64
    return (STATE >> 33) % limit


def pick(choices):
    return choices[below(len(choices))]


FIRST = ["acme", "blue fjord", "café sol", "delta", "eastgate", "früh & söhne", "green mile", "harbour", "iris", "jade"]
SECOND = ["gmbh", "trading", "foods", "books", "studio"]
CUSTOMERS = [f"{first} {second}" for first in FIRST for second in SECOND][::2] + ["müller-lüdenscheidt", "o'neill"]
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def customer_text():
    words = pick(CUSTOMERS).split(" ")
    style = below(10)
    if style < 5:
        words = [word.capitalize() for word in words]
    elif style < 7:
        words = [word.upper() for word in words]
    elif style < 8:
        words = [word[:1].upper() + word[1:].upper() if below(2) else word for word in words]
    return ("  " if below(25) == 0 else " ").join(words)


def date_text():
    month, day = 1 + below(12), 1 + below(28)
    return pick([
        f"2025-{month:02}-{day:02}",
        f"2025-{month:02}-{day:02}",
        f"{day:02}.{month:02}.2025",
        f"{month:02}/{day:02}/2025",
        f"{day} {pick([MONTHS[month - 1], MONTHS[month - 1].upper()])} 2025",
    ])


def grouped(number, separator):
    return f"{number:,}".replace(",", separator)


def amount_text():
    euros, cents = pick([below(90), below(900), 1000 + below(9000), 10000 + below(90000)]), below(100)
    number = pick([
        f"{euros}.{cents:02}",
        f"{euros}.{cents:02}",
        f"{euros},{cents:02}",
        f"{grouped(euros, ',')}.{cents:02}",
        f"{grouped(euros, '.')},{cents:02}",
        f"{grouped(euros, ' ')},{cents:02}",
        f"{grouped(euros, chr(39))}.{cents:02}",
        grouped(euros, pick(["", ".", ","])),
    ])
    return pick(["{}", "{}", "€{}", "€ {}", "{} €", "EUR {}", "{} EUR", "{}eur"]).format(number)


def status_text():
    status = pick(["paid"] * 10 + ["shipped"] * 8 + ["cancelled", "canceled"])
    return pick([status, status, status.capitalize(), status.upper()])


def field(text):
    if below(12) == 0:
        text = pick([" ", "  ", "\t"]) + text + pick(["", " "])
    if "," in text or '"' in text or below(15) == 0:
        text = '"' + text.replace('"', '""') + '"'
    return text


def line(parts):
    return ",".join(field(part) for part in parts)


def spoiled(parts):
    """The same row with one fault."""
    parts = list(parts)
    fault = below(8)
    if fault == 0:
        return parts[:4]
    if fault == 1:
        return parts + ["?"]
    if fault == 2:
        parts[0] = pick(["", "ORD-", "1234", "ORD-12x"])
    elif fault == 3:
        parts[1] = pick(["", " "])
    elif fault == 4:
        parts[2] = pick(["31.02.2025", "2025-13-01", "yesterday", "2025/03/07", "7.3.2025", "", "29 Feb 2025"])
    elif fault == 5:
        parts[3] = pick(["pending", "", "payed", "n/a"])
    else:
        parts[4] = pick(["n/a", "12,5", "-3.00", "1.23.45", "", "1,2345.00", "€", "1 234.5", "$12.00"])
    return parts


def main():
    out, seen = ["order_id,customer,date,status,amount"], []
    for number in range(4000):
        if below(60) == 0:
            out.append(pick(["", "", "   ", "\t"]))
        if seen and below(45) == 0:
            # Sent twice: as it was, in another writing, or changed since.
            parts = list(pick(seen))
            if below(3) == 0:
                parts[0] = parts[0].lower()
                parts[4] = amount_text()
            if below(4) == 0:
                parts[3] = status_text()
            out.append(line(parts))
            continue
        parts = [f"{pick(['ORD', 'ORD', 'ORD', 'ord'])}-{100000 + number}", customer_text(), date_text(), status_text(), amount_text()]
        if below(70) == 0:
            out.append(line(spoiled(parts)))
            continue
        seen.append(parts)
        out.append(line(parts))
    sys.stdout.reconfigure(encoding="utf-8", newline="")
    # The export's last third was saved on another system.
    third = len(out) * 2 // 3
    sys.stdout.write("".join(text + ("\n" if index < third else "\r\n") for index, text in enumerate(out)))


main()
