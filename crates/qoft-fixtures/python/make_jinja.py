"""data/jinja.json: small templates with what transformers' Jinja environment renders from them.

Each entry is [template, text], or [template, null] where rendering fails. The variables are in `variables`.
"""

import json
import re
from pathlib import Path

import transformers.utils.chat_template_utils as chat_utils

DATA = Path(__file__).resolve().parent.parent / "data"

VARIABLES = {
    "text": "Hello World, it's  <b>\"fine\"</b> & é你🙂\n\tsecond line\r\n\nend ",
    "word": "straße",
    "empty": "",
    "number": 7,
    "negative": -7,
    "big": 18446744073709551615,
    "float": 2.5,
    "whole": 3.0,
    "tiny": 1e-7,
    "huge": 1.5e300,
    "yes": True,
    "no": False,
    "null": None,
    "list": [3, 1, 2],
    "words": ["banana", "Apple", "cherry", "apple"],
    "mixed": [1, "a", None, 2.5, [True, {"k": "v"}]],
    "nothing": [],
    "dict": {"b": 1, "a": [1, 2], "C": {"d": None}, "items": 5},
    "people": [
        {"name": "Bob", "age": 30, "tags": ["x"], "address": {"city": "Rome"}},
        {"name": "alice", "age": 25, "tags": [], "address": {"city": "Bern"}},
        {"name": "Carol", "age": 30, "address": {"city": "rome"}},
    ],
    "odd": "a\u00a0b\u200bc\ufeffd\u0001e\u007f\u2028f\U0001f469\u200d\U0001f4bb'\"\\",
}

EXPRESSIONS = r"""
number + 1 | number - 10 | number * 3 | number / 2 | number // 2 | number % 4 | number ** 2 | 2 ** -1 | 2 ** 3 ** 2
negative // 2 | negative % 3 | 7 % -3 | -7 // -2 | 7 // -2 | negative / 2 | 6 / 3 | 7.5 // 2 | 7.5 % 2 | -7.5 % 2 | 7.5 // -2
yes + 1 | yes * 3 | no - 1 | 1 + 2.0 | 1e3 | 1_000 | 0x1F | 0b101 | 0o17 | 1.5e-3 | 5 / 0 | 5 // 0 | 5 % 0 | 2.0 ** 0.5
-number | +number | -yes | - 3 | --3 | -2 ** 2 | 2 ** 2 | -text | -null
"a" + "b" | "a" + 1 | 1 + "a" | "ab" * 3 | 3 * "ab" | "ab" * 0 | "ab" * -1 | [1] * 2 | [1] + [2] | (1,) + (2, 3) | [1] + (2,) | {} + {}
"a" ~ 1 ~ none ~ true ~ 1.0 ~ [1, "x"] ~ {"a": none} | 1 ~ 2 | missing ~ "x" | dict ~ "" | (1,) ~ (1, 2) ~ ()
missing | missing.x | missing + 1 | missing == missing | missing == none | missing is defined | missing | length | missing | list | missing["x"]
missing and 1 | missing or 2 | not missing | missing in [1] | 1 in missing | missing < 1 | missing | upper | missing | default("d") | missing | join
null.x | null["x"] | null + 1 | null is none | null | length | null | list | null == none | none in [none] | null | upper | null ~ "" | null | int
1 == 1.0 | 1 == true | "1" == 1 | [1, 2] == [1, 2] | (1, 2) == [1, 2] | {"a": 1} == {"a": 1.0} | 1 != 2 | "a" < "b" | "a" < 1 | 1 < 2 < 3 | 3 > 2 > 2
[1, 2] < [1, 3] | [1] < [1, 0] | "B" < "a" | 1 <= 1.0 | none < 1 | true < 2 | {} < {} | 1 in [1.0] | "a" in "abc" | "" in "abc" | 1 in "abc" | "b" in dict | "z" not in dict
1 in dict | [] in dict | 2 in range(3) | 5 in range(3) | "x" in {"x": 1}.keys() | 1 in {"x": 1}.values() | ("x", 1) in {"x": 1}.items()
yes and no | yes or no | 0 or "x" | "" and 1 | not yes | not 0 | not "" and 1 | 1 and 2 and 3 | 0 or [] or {} | none or false
1 if yes else 2 | 1 if no else 2 | 1 if no | (1 if no) is defined | 1 if no else 2 if no else 3 | "a" if missing else "b" | "x" if [] else "y"
text[0] | text[-1] | text[100] | text[1:4] | text[::-1] | text[-5:] | text[:5] | text[::2] | text[5:1:-1] | text[1:100] | text[100:] | text[:-1] | text[none:3]
list[0] | list[-1] | list[5] | list[1:] | list[::-1] | list[:2] | list[-2:] | list["0"] | list[true] | list[1.0] | list.0 | (1, 2, 3)[1:] | range(10)[2:5] | range(10)[-1] | range(5)[::-1]
dict["b"] | dict.b | dict["z"] | dict.z | dict.items | dict["items"] | dict.a[0] | dict.a.0 | dict["C"]["d"] | dict.C.d | dict[1] | {1: "x"}[1] | {1: "x"}[true] | {1: "x"}[1.0] | {"a": 1, "a": 2}
{none: 1, true: 2, 1.5: 3, (1, 2): 4} | {[]: 1} | {1: 2}[[1]] | {"a": 1}.items() | {"a": 1}.keys() | {"a": 1}.values() | [] | {} | () | (1,) | (1, 2) | [1, "a", 2.5, none, true]
[1, [2, [3]]] | {"a": {"b": [1, "it's"]}} | ["it's", 'say "x"', 'both \' and "'] | [odd] | [text] | range(3) | range(1, 10, 2) | range(5, 0, -1) | [range(2)] | [missing] | [tiny, huge, whole, big]
number | string | tiny | huge | whole | big | 1e15 | 1e16 | 1e22 | 123456789.123456789 | 0.1 + 0.2 | 1/3 | 100.0 | 1e5 | 1e-4 | 1e-5 | -0.0 | 1.0e100
text.upper() | text.lower() | text.title() | text.capitalize() | text.swapcase() | word.upper() | word.title() | word.capitalize() | word.casefold() | "ǆ".title() | "ŉa".title() | "ﬁne".capitalize()
text.strip() | " a ".strip() | "xxaxx".strip("x") | "xyaxy".lstrip("xy") | "xyaxy".rstrip("xy") | "a".strip(none) | "\x1c a \x1f".strip() | "\u00a0a\u3000".strip() | "\u200ba".strip() | " a ".lstrip() | " a ".rstrip()
text.split() | text.split(" ") | text.split("l", 1) | text.split(maxsplit=1) | text.rsplit(" ", 1) | text.rsplit() | "a b  c ".split(none, 1) | " a b c".rsplit(none, 1) | "a,b,,c".split(",") | "".split() | "".split(",") | "a".split("")
"a--b--c".split("--", 1) | "a--b--c".rsplit("--", 1) | "a-b".partition("-") | "ab".partition("-") | "a-b-c".rpartition("-") | "ab".rpartition("-") | text.splitlines() | text.splitlines(true) | "a\n".splitlines() | "a\r\n\nb\x0bc".splitlines()
"abc".startswith("a") | "abc".startswith(("x", "a")) | "abc".startswith("b", 1) | "abc".endswith("c") | "abc".endswith("b", 0, 2) | "abc".startswith("") | "abc".startswith("", 5) | "abc".endswith(["c"]) | "abc".startswith(1)
text.find("l") | text.find("zz") | text.rfind("l") | text.index("W") | text.index("zz") | text.count("l") | "aaaa".count("aa") | "abc".count("") | "é你a".find("a") | "abcabc".find("a", 1) | "abcabc".find("c", 0, 2) | "abcabc".rfind("a", 0, 3) | "abc".find("", 3) | "abc".find("", 4)
text.replace("l", "L") | text.replace("l", "L", 1) | "aaa".replace("a", "b", 2) | "abc".replace("", "-") | "abc".replace("", "-", 2) | "abc".replace("x", "") | "aa".replace("a", "aa") | "a".replace("a", 1)
"abc".center(9) | "abc".center(8, "*") | "ab".center(7) | "abc".ljust(6) + "|" | "abc".rjust(6, "0") | "42".zfill(5) | "-42".zfill(5) | "abc".ljust(2) | "a".center(4) | "a\tb".expandtabs() | "a\tb".expandtabs(4) | "abc".zfill(2)
"abc".isalpha() | "ab1".isalpha() | "ab1".isalnum() | "12".isdigit() | "²".isdigit() | "²".isdecimal() | "½".isnumeric() | "٣".isdecimal() | " ".isspace() | "".isspace() | "Ab".istitle() | "A B".istitle() | "aB".istitle() | "ABC".isupper() | "A1".isupper() | "1".isupper() | "ab".islower() | "é".isascii() | "a_1".isidentifier() | "1a".isidentifier() | "a\n".isprintable() | odd.isprintable()
", ".join(words) | "".join([]) | ",".join("abc") | ",".join([1]) | ",".join(words | map("upper")) | "x".join(dict) | "abc".removeprefix("a") | "abc".removesuffix("bc") | "abc".removeprefix("x") | "".join(words[:2])
"{} {}".format(1, "a") | "{1} {0}".format(1, 2) | "{a}".format(a=1) | "{:>5}|{:<5}|{:^5}".format(1, "a", "b") | "{:05d}".format(42) | "{:.2f}".format(3.14159) | "{:,}".format(1234567) | "{:x} {:X} {:b} {:o} {:#x}".format(255, 255, 5, 8, 255) | "{:%}".format(0.25) | "{:e}".format(12345.678) | "{!r}".format("a") | "{{}}".format() | "{".format() | "{:+d} {: d}".format(1, 2) | "{0[a]} {0[b]}".format({"a": 1, "b": 2}) | "{0.x}".format({}) | "{:>{}}".format("a", 5) | "{:*^7}".format("ab") | "{:g} {:g} {:g}".format(1.5, 1e10, 0.00001) | "{:.3}".format("abcdef") | "{:.3}".format(3.14159) | "{:s}".format("a") | "{:d}".format("a") | "{:_}".format(1234567) | "{:010.3f}".format(-3.14159) | "{:5}|".format(true) | "{}".format(none) | "{:5}".format(none) | "{a} {}".format(1, a=2) | "{:,.2f}".format(1234567.891) | "{:.0f} {:.0f}".format(0.5, 1.5) | "{}".format()
"%s" % 1 | "%s and %s" % ("a", none) | "%d" % 3.7 | "%5d|%-5d|%05d|%+d" % (1, 2, 3, 4) | "%x %X %o %#x" % (255, 255, 8, 255) | "%.2f %e %g" % (1.5, 1.5, 1.5) | "%r" % "a" | "%%" % () | "%(a)s" % {"a": 1} | "%(z)s" % {"a": 1} | "%s" % (1, 2) | "%s %s" % 1 | "%c%c" % ("a", 98) | "%s" % [1, 2] | "%d" % "a" | "%5s|%-5s|" % ("a", "b") | "%.2s" % "abc" | "%*d" % (5, 1) | "%i" % true | "abc" % 1 | "%s" % {"a": 1} | "%G %E" % (1e-10, 1.0) | "%.3d" % 5 | "% d" % 5 | "%g" % 100000.0 | "%g" % 1000000.0 | "%s" % none | "%-05d|" % 3 | "%z" % 1 | "%" % 1 | "%a" % "é"
text | upper | text | lower | text | title | text | capitalize | text | trim | "xax" | trim("x") | text | length | text | count | text | wordcount | text | reverse | text | replace("l", "L") | text | replace("l", "L", 1) | 123 | replace(1, 2) | text | indent | text | indent(2) | text | indent(2, true) | text | indent(2, blank=true) | text | indent("> ") | text | indent(width=3, first=True) | "a\n\nb" | indent | 5 | indent | "foo-bar baz(qux)" | title | "it's o'neil" | title
text | truncate(10) | text | truncate(10, true) | "foo bar baz qux" | truncate(9) | "foo bar baz qux" | truncate(11, false, "...", 0) | "foo" | truncate(2) | text | center(80) | "abc" | center(10) | "%s %s" | format(1, 2) | "%(a)s" | format(a=1) | 5 | upper | none | upper | true | lower | [1] | upper
text | escape | text | e | text | safe | "<" | escape | escape | "<b>x</b>" | striptags | ("<" | safe) + "<" | "<" + (">" | safe) | ("<" | e) ~ "<" | "a b/c?é" | urlencode | {"a": "b c", "d": 1} | urlencode | text | forceescape | ("<" | safe) | forceescape | ("a" | safe) is escaped | ("%s" | safe) % "<" | ("," | safe).join(["<", ">" | safe]) | {"class": "a<", "x": none} | xmlattr
list | first | list | last | nothing | first | nothing | last | text | first | text | last | dict | first | list | length | list | sort | list | sort(reverse=true) | words | sort | words | sort(case_sensitive=true) | people | sort(attribute="age") | map(attribute="name") | list | people | sort(attribute="age,name") | map(attribute="name") | list | mixed | sort | list | sum | people | sum(attribute="age") | nothing | sum | words | sum | list | min | list | max | words | min | words | max | nothing | min | people | max(attribute="age")
list | join | list | join(", ") | people | join(", ", attribute="name") | mixed | join("-") | "abc" | join(".") | list | reverse | list | list | reverse | list | join | words | unique | list | words | unique(case_sensitive=true) | list | [1, 1.0, true, 2] | unique | list | people | unique(attribute="age") | map(attribute="name") | list | dict | list | dict | items | list | missing | items | list | 5 | items | list | "abc" | list | 5 | list
people | map(attribute="name") | list | people | map(attribute="address.city") | list | people | map(attribute="tags", default=["none"]) | list | people | map(attribute="tags.0") | list | words | map("upper") | list | words | map("replace", "a", "A") | list | words | map("length") | list | list | map("string") | list | list | map | list | people | map("attr", "name") | list | [1, 2] | map("nothing") | list
people | selectattr("tags") | list | length | people | selectattr("age", "equalto", 30) | map(attribute="name") | list | people | selectattr("age", ">", 26) | map(attribute="name") | list | people | rejectattr("age", "eq", 30) | map(attribute="name") | list | people | selectattr("tags", "defined") | list | length | people | selectattr("address.city", "in", ["Rome"]) | map(attribute="name") | list | list | select("odd") | list | list | reject("odd") | list | mixed | select | list | mixed | select("string") | list | list | select("divisibleby", 3) | list | missing | select | list | people | selectattr("name", "string") | first
people | groupby("age") | map("first") | list | people | groupby("age") | map(attribute="list") | map("length") | list | people | groupby("address.city") | list | length | people | groupby("age") | first | length | dict | dictsort | dict | dictsort(true) | dict | dictsort(reverse=true) | {"x": 2, "y": 1} | dictsort(by="value") | list | batch(2) | list | list | batch(2, "x") | list | [1, 2, 3, 4, 5] | slice(2) | list | [1, 2, 3, 4, 5] | slice(3, "x") | list
"42" | int | "x" | int | "x" | int(5) | "42.7" | int | 3.9 | int | -3.9 | int | "0x1f" | int(0, 16) | "1f" | int(base=16) | "101" | int(0, 2) | none | int | "1_000" | int | " 5 " | int | true | int | "1e3" | int | [] | int | missing | int | "inf" | int
"3.5" | float | "x" | float | "x" | float(1.5) | 3 | float | "1e3" | float | none | float | true | float | "nan" | float | "-inf" | float | 3.7 | round | 3.14159 | round(2) | 2.5 | round | 3.5 | round | 3.2 | round(0, "ceil") | 3.7 | round(method="floor") | 5 | round | 1234 | round(-2) | 1250 | round(-2) | 2.675 | round(2) | 0.5 | round | -2.5 | round | 3.14159 | round(2, "ceil") | -5 | abs | -5.5 | abs | "a" | abs | true | abs | 1000 | filesizeformat | 1 | filesizeformat | 1500000 | filesizeformat | 1500000 | filesizeformat(true) | 10 | filesizeformat
missing | default | missing | d("x") | "" | default("x") | "" | default("x", true) | none | default("x") | none | default("x", true) | 0 | default(5, boolean=true) | list | string | dict | string | none | string | 1.0 | string
dict | tojson | mixed | tojson | text | tojson | odd | tojson | number | tojson | null | tojson | true | tojson | 1.5 | tojson | tiny | tojson | huge | tojson | missing | tojson | dict | tojson(indent=2) | mixed | tojson(indent=4) | [] | tojson(indent=2) | {} | tojson(indent=2) | dict | tojson(sort_keys=true) | text | tojson(ensure_ascii=true) | dict | tojson(separators=(",", ":")) | dict | tojson(indent="--") | dict | tojson(indent=0) | dict | tojson(true) | {1: 2, none: 3, true: 4, 1.5: 5} | tojson | (1, 2) | tojson | range(3) | tojson | {"a": range} | tojson | dict | tojson | length | [1, 2] | tojson(indent=none) | {(1, 2): 3} | tojson | {"b": 1, 1: 2} | tojson(sort_keys=true) | ["a" | safe] | tojson | dict.items() | tojson | [missing] | tojson
number is number | text is string | list is iterable | text is iterable | dict is mapping | list is sequence | text is sequence | dict is sequence | number is sequence | null is none | yes is boolean | 1 is boolean | 1 is integer | 1.0 is integer | true is integer | 1.0 is float | yes is true | 1 is true | no is false | missing is undefined | 3 is odd | 4 is even | 9 is divisibleby 3 | 9 is divisibleby(2) | "a" is lower | "A" is upper | "1" is lower | 1 is eq 1 | 1 is equalto(2) | 1 is ne 2 | 1 is lt 2 | 1 is le 1 | 1 is gt 2 | 1 is ge 1 | 1 is in [1] | 1 is not in [1] | range is callable | text.upper is callable | number is callable | 1 is sameas 1 | none is sameas none | 1 is sameas true | x is not defined | number is not none and yes | 1 is == 1 | 2 is greaterthan 1 | 2 is lessthan 1 | range(3) is iterable | range(3) is sequence | missing is iterable | missing is callable | (words | map("upper")) is iterable | (words | map("upper")) is sequence | 5 is nothing | dict.items() is sequence | dict.items() is iterable | true is number | none is number | namespace() is mapping
list.append(4) | dict.update({}) | dict.pop("b") | list.sort() | list.copy() | dict.copy() | list.count(1) | list.index(2) | list.index(9) | (1, 2).count(1) | (1, 2, 1).index(1, 1) | dict.get("b") | dict.get("z") | dict.get("z", 5) | dict.get() | number.real | number.bit_length() | float.is_integer() | text.__class__ | list.__len__() | text.nothing | text.nothing() | number() | dict.get("C").get("d") | text.format | dict.setdefault("q", 1) | dict.clear | list.clear is defined
range(5) | list | range(2, 5) | list | range(10, 0, -3) | list | range(0) | list | range(100001) | length | range(100000) | length | range("a") | range(1, 2, 0) | range(3).start | range(1.5)
dict(a=1, b=2) | dict([("a", 1)]) | dict({"a": 1}, b=2) | dict(a=1).a | dict() | dict([1]) | namespace(a=1).a | namespace(a=1) | namespace({"x": 1}).x | namespace(_x=1) | namespace(a=1)["a"] | namespace(a=1).b | namespace(a=1) ~ "" | dict(namespace())
"a\nb\tc\\d\'e\"f" | "\x41\u00e9\U0001f600\101\q" | 'it''s' "x" | "a" "b" | "a\
b"
strftime_now("%Y") | length | strftime_now("%Y-%m-%d") | length | raise_exception("x") | lipsum is callable | cycler("a", "b").next() | cycler("a", "b").current | joiner is callable | joiner("|")() | cycler()
words | map("first") | join | words | map("upper") | first | (words | map("upper")) | length | words | select("string") | list | length | words | last | dict.keys() | first | dict.values() | list | last | dict.items() | list | first | dict | length | dict.keys() | list | sort | dict.items() | first | last | text.split("\n")[0].split(",")[-1].strip() | (list + [4]) | sum | list[list | length - 1]
words|join(', ') if words is iterable and words is not string else words | (1, 2) is sequence and not (1, 2) is string | not yes == no | 1 + 2 * 3 - 4 / 2 ~ "x" | 1 ~ 2 + 3 | "a" ~ "b" == "ab" | 2 * 3 ~ 4 | -1 | abs | (-1) | abs | 1 - 1 | string | 1 + 1 is odd | "a" in "abc" and "z" not in "abc" | 1 if 0 else 2 + 3 | [1, 2, 3][1:][0] | {"a": [1, {"b": 2}]}.a[1].b | "abc"[1] ~ "abc"[:2] | "a,b" | replace(",", "\n") | tojson | dict.a | length > 1 | (text | lower)[:5] | text[:5] | lower | "x" * (3 - 1) | 10 // 3 * 3 + 10 % 3 | 1 < 2 == 2
1.e5 | 1.0.real | 1..x | .5 | 1_0.5_0 | 1__0 | 00 | 01 | 1e | 0x | 0xg | 1.5.is_integer() | 2 .real | 123abc | a b | 1 2 | [1,,2] | [1,] | {"a" 1} | (,) | foo( | "abc | text | | text |  upper( | x is | x is is y | *a | 1 +
number[1:] | dict[:2] | {missing: 1} | [missing, 1, missing] | unique | list | ",".join(missing) | missing.__class__ | missing | truncate(5) | "a" % missing | "%s" % missing | number[] | null[:1] | {missing: 1}[missing] | dict.get(missing, 2) | missing in dict
"\ud83d" | "\x4" | "\u12" | text["upper"]() | text["up" ~ "per"]() | dict["get"]("b") | (1, 2, 3)[::-1] | [1, 2, 3][-2:] | "a"[0][0][0] | number[0] | none[0] | 1 in 5 | 1 in none | [1, 2] * "a" | true + true | 3 - "a" | "a" - "a" | {} - {} | [3] - [3] | "abc" > "abd" | none == false | 0 == false | "" == none | [] == false | 1.0 is eq 1 | 5 // 2.0 | 1 / 3.0 | 1e308 * 10 | -7 // 2 | -7 % 3 | 7 % -3 | -7.5 // 2
"""

STATEMENTS = [
    "{% for x in list %}{{ x }}{% endfor %}",
    "{% for x in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}|{% endfor %}",
    "{% for x in list %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}|{% endfor %}",
    "{% for x in list %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in list %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }}{% endfor %}{% for x in [1] %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in list if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{% else %}none{% endfor %}",
    "{% for x in list if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in missing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in none %}{{ x }}{% endfor %}",
    "{% for x in 5 %}{{ x }}{% endfor %}",
    "{% for x in text[:5] %}{{ x }}.{% endfor %}",
    "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in dict %}{{ k }}{% endfor %}",
    "{% for k, v in dict | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{% endfor %}",
    "{% for a, b in ['xy'] %}{{ a }}-{{ b }}{% endfor %}",
    "{% for x in list %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in list %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}",
    "{% break %}",
    "{% for x in list %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in [[1, [2, [3]]]] recursive %}{% if x is iterable %}({{ loop(x) }}{{ loop.depth }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "{% for x in list %}{{ loop(list) }}{% endfor %}",
    "{% for x in list %}{% for y in list %}{{ loop.index }}{% endfor %}{{ loop.index }}|{% endfor %}",
    "{% for x in list %}{% set outer = loop %}{% for y in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for p in people | groupby('age') %}{{ p.grouper }}:{{ p.list | map(attribute='name') | join(',') }}{{ p[0] }}{{ p }};{% endfor %}",
    "{% for age, group in people | groupby('age') %}{{ age }}:{{ group | length }};{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}{{ x is defined }}",
    "{% set x = 1 %}{% for y in list %}{% set x = y %}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% for y in list %}{{ x }}{% set x = y %}{{ x }}|{% endfor %}{{ x }}",
    "{% set ns = namespace(x=0) %}{% for y in list %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b = [ns.a] %}{{ ns.a }}{{ ns.b }}{{ ns }}{{ ns.c }}",
    "{% set dict.x = 1 %}",
    "{% set missing.x = 1 %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}",
    "{% if yes %}{% set x = 1 %}{% endif %}{{ x }}{% if no %}{% set y = 1 %}{% endif %}{{ y is defined }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}{% set (a, b) = [3, 4] %}{{ a }}",
    "{% set a, b = [1] %}",
    "{% set x %}a{{ number }}b{% endset %}{{ x | upper }}{{ x is string }}",
    "{% set x | upper | replace('A', '-') %}abc{% endset %}{{ x }}",
    "{% set x %}{% set inner = 5 %}{{ inner }}{% endset %}{{ x }}{{ inner is defined }}",
    "{% with a = 1, b = number %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% set c = 3 %}{% endwith %}{{ c is defined }}{{ a }}",
    "{% with %}{% set z = 1 %}{{ z }}{% endwith %}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(a=5, c=6) }}|{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a, b) %}{{ a }}{{ b is defined }}{{ caller is defined }}{% endmacro %}{{ m(1) }}",
    "{% macro m(x) %}[{{ caller() }}{{ x }}]{% endmacro %}{% call m(1) %}body{{ number }}{% endcall %}",
    "{% macro m() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b=5) m() %}{{ a }}{{ b }}{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% call raise_exception('x') %}{% endcall %}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 3 %}{{ m() }}",
    "{% for i in list %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro fact(n) %}{% if n < 2 %}1{% else %}{{ n * (fact(n - 1) | int) }}{% endif %}{% endmacro %}{{ fact(10) }}",
    "{% macro a() %}{% set x = 5 %}{{ x }}{% endmacro %}{{ a() }}{{ x is defined }}{{ a.name }}",
    "{% macro m() %}<{% endmacro %}{{ m() ~ m() | length }}{{ m() is string }}",
    "{% filter upper %}abc{{ number }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}abc{% endfilter %}",
    "{% block x %}{{ number }}{% endblock %}{% block y scoped %}z{% endblock y %}",
    "{% for i in list %}{% block b scoped %}{{ i }}{% endblock %}{% endfor %}",
    "{% for i in list %}{% block b %}{{ i }}{% endblock %}{% endfor %}",
    "{% generation %}a{% set q = 1 %}{{ number }}{% endgeneration %}{{ q is defined }}",
    "{%- generation -%} a {%- endgeneration -%} b",
    "{% raw %}{{ x }}{% if %}{% endraw %}",
    "{% raw -%}  {{ x }}  {%- endraw %}y",
    "a\n  {% raw %}\n b\n  {% endraw %}\nc",
    "{# comment #}a{# multi\nline #}b",
    "{#- strip -#}  a  {#- x -#}  b",
    "a\n  {# c #}\nb\n",
    "  {% if yes %}\n  a\n  {% endif %}\n  b\n",
    "  {%- if yes -%}\n  a\n  {%- endif -%}\n  b\n",
    "  {%+ if yes +%}\n  a\n  {%+ endif +%}\n  b\n",
    "  {{ number }}\n  {{- number -}}\n  x",
    "{{ number }}\n{% if yes %}\n\nx\n{% endif %}\n\n",
    "x  {% if yes %}  y  {% endif %}  z",
    "\t{% if yes %}\ta{% endif %}\t\n{% if yes %}b{% endif %}",
    "a\r\n{% if yes %}\r\nb\r\n{% endif %}\r\nc\r\n",
    "a\r{% if yes %}\rb{% endif %}\rc",
    "{{ 'a\r\nb' }}",
    "{{ '\\r\\n' | length }}",
    "{% if yes %}a{% elif no %}b{% else %}c{% endif %}{% if no %}a{% elif yes %}b{% else %}c{% endif %}{% if no %}a{% else %}c{% endif %}",
    "{% if no, %}tuple{% endif %}",
    "{% print 1, 'a' %}{% print number %}",
    "{{ 1, 2 }}{{ (1) }}{{ () }}",
    "{{ }}",
    "{% %}",
    "{% unknown %}",
    "{% if yes %}",
    "{% endif %}",
    "{% for x in list %}",
    "{{ x",
    "a{#",
    "{% if x",
    "{# x",
    "{% raw %}x",
    "{{ 1 }",
    "{ { x } } {x} {",
    "{{ '}}' }}{{ {'a': {'b': 1}} }}{{ '%}' }}",
    "{% set x = {'a': 1} %}{{ x }}{% set y = '%}' %}{{ y }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% set a = words | map('upper') %}{{ a | list }}{{ a | list }}",
    "{% set a = list | select('odd') %}{% for x in a %}{{ x }}{% endfor %}{% for x in a %}{{ x }}{% else %}empty{% endfor %}",
    "{% set a = list | reverse %}{{ a | first }}{{ a | list }}",
    "{% set d = dict.items() %}{{ d | length }}{{ d | list | length }}{{ d | list | length }}",
    "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}",
    "{% set j = joiner(', ') %}{% for x in list %}{{ j() }}{{ x }}{% endfor %}",
    "{% set l = [] %}{% set _ = l.append(1) %}",
    "{% set l = [1] %}{% set l = l + [2] %}{{ l }}",
    "{% set d = dict(dict, z=1) %}{{ d.z }}{{ d | length }}",
    "{% for m in people %}{{ m.name }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for m in people[1:] %}{{ m['name'] }}{% endfor %}{{ people[0]['tags'][0] }}{{ people[2].tags }}",
    "{% for m in people | reverse %}{{ m.name }}{{ loop.index }}{% endfor %}",
    "{% set x = namespace(l=[]) %}{% for i in range(3) %}{% set x.l = x.l + [i * 2] %}{% endfor %}{{ x.l | join('-') }}",
    "{% if messages is not defined %}no messages{% endif %}{% if tools is defined and tools %}t{% endif %}",
    "{{ caller }}{{ loop }}",
    "{% for x in [1] %}{{ loop }}{% endfor %}",
    "{% set loop = 5 %}{{ loop }}",
    "{% set range = 5 %}{{ range }}",
    "{% set x = none %}{{ x }}{{ x is none }}{% set true = 1 %}",
    "{% for true in list %}{% endfor %}",
    "{{ dict(**dict).b }}{{ dict(*[[('q', 1)]]).q }}",
    "{{ '{a}{b}'.format(**{'a': 1, 'b': 2}) }}{{ '{}{}'.format(*[1, 2]) }}",
    "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1], **{'b': 2}) }}",
    "{{ {'a': 1}['a'] }}{{ [[1, 2], [3]][0][1] }}{{ ('x' if yes else 'y') * 2 }}",
    "{% if 'a' in dict and dict['a'] is iterable and dict['a'] is not string %}ok{% endif %}",
    "{%- for x in list -%}\n    {{- x -}}\n{%- endfor -%}\n  tail  ",
    "{% set t = 'x' %}{% set t = t ~ 'y' %}{{ t }}{{ t + 'z' }}",
    "{% if (number > 5) == true %}a{% endif %}{% if number % 2 == 1 %}b{% endif %}{% if (loop.index0 if loop is defined else 1) %}c{% endif %}",
    "{{ raise_exception('stop ' ~ number) }}",
    "{{ text | nosuchfilter }}",
    "{% if no %}{{ text | nosuchfilter }}{% endif %}ok",
    "{{ ''.join(['a']) }}{{ '\\n'.join(words) }}",
    "{{ '%s' | format }}{{ 'x' | format }}",
    "{% set x = people | selectattr('age', 'equalto', 30) | list %}{{ x | length }}{{ x[0].name }}{{ (x | last).name }}",
    "{{ list | map('int') | sum }}{{ ['1', '2'] | map('int') | sum }}{{ [[1], [2]] | sum(start=[]) }}",
    "{{ people | map(attribute='age') | unique | sort | join(',') }}",
    "{{ dict | items | list | length }}{{ {'a': 1} | items | first }}",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{% if b == 4 %}{% break %}{% endif %}{{ a }}{{ b }} {% endfor %}{% endfor %}",
    "{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}o{% endmacro %}{{ outer() }}",
    "{% set f = range %}{{ f(2) | list }}{% set u = text.upper %}{{ u()[:5] }}",
    "{{ [1, 2, 3] | batch(2) | map('list') | list }}{{ 'abcdef' | batch(4) | list }}",
]


# A bar that does not belong to a filter separates expressions.
FILTERS = set(
    "abs attr batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format"
    " groupby indent int items join last length list lower map max min reject rejectattr replace reverse round safe"
    " select selectattr slice sort string striptags sum title tojson trim truncate unique upper urlencode wordcount"
    " xmlattr".split()
)


def templates():
    for line in EXPRESSIONS.strip("\n").replace("\\\n", "\\\x00").split("\n"):
        parts = line.replace("\x00", "\n").split(" | ")
        current = parts[0]
        for part in parts[1:]:
            name = re.match(r"\w*", part).group()
            if name in FILTERS and not (name in VARIABLES and re.fullmatch(r"\w+", current) and name == "list"):
                # `list | first` after a complete expression is ambiguous: both readings are tried.
                if name in VARIABLES:
                    yield "{{ " + current + " }}"
                current += " | " + part
            else:
                yield "{{ " + current + " }}"
                current = part
        yield "{{ " + current + " }}"
    yield from STATEMENTS


def render(template):
    try:
        text = chat_utils._compile_jinja_template(template).render(**VARIABLES)
        text.encode("utf-8")  # half a surrogate pair is no text
        return text
    except Exception:
        return None


def main():
    entries = {}
    for template in templates():
        text = render(template)
        # Some objects print their address.
        if text is None or " at 0x" not in text:
            entries[template] = text
    lines = [json.dumps([template, text], ensure_ascii=False) for template, text in entries.items()]
    variables = json.dumps(VARIABLES, ensure_ascii=False)
    text = '{"variables":' + variables + ',\n"templates":[\n' + ",\n".join(lines) + "\n]}\n"
    (DATA / "jinja.json").write_text(text, encoding="utf-8")
    failing = sum(text is None for text in entries.values())
    print(f"{len(entries)} templates, {failing} of them fail")


main()
