#!/usr/bin/env python3
"""Make each command's man page and bash completion from its own argparse parser.

    tools/pages.py            write them to papaya_pool/share/, from where pip installs
    tools/pages.py --check    write nothing; name those that are out of date, and exit 1

Run it after a change of options; tests/unit/test_pages.py fails until somebody has.
Only the one line under NAME stands in here, all else in the parser: a line of the
epilog that ends with a colon begins a section of the man page, and an option's
metavar (FILE, DIR, ROOM) says what the completion offers behind it.
"""

import argparse
import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARE = ROOT / "papaya_pool" / "share"
sys.path.insert(0, str(ROOT))

# command -> the module that has its parser(), and what it is
COMMANDS = {
    "papaya-pool": ("settings", "chat server made of a fixed pool of processes"),
    "papaya-chat": ("chat", "chat from a terminal or a pipe"),
    "papaya-top": ("top", "live view of a chat server's processes and clients"),
    "papaya-ctl": ("ctl", "look at a running chat server, and steer it"),
}
MADE = "Made by tools/pages.py from the program's own options; do not edit."

# metavar -> bash that fills COMPREPLY
OFFERS = {
    "FILE": 'mapfile -t COMPREPLY < <(compgen -f -- "$cur")\ncompopt -o filenames 2>/dev/null',
    "DIR": 'mapfile -t COMPREPLY < <(compgen -d -- "$cur")\ncompopt -o filenames 2>/dev/null',
    "ROOM": "words=\"join $(sed -n 's/^\\[rooms\\.\\([A-Za-z0-9_-]*\\)\\]$/\\1/p' \\\n"
    '    "${XDG_CONFIG_HOME:-$HOME/.config}/papaya-chat/config.toml" 2>/dev/null)"',
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only look")
    check = parser.parse_args().check
    stale = [path for path, text in made().items() if not is_current(path, text)]
    for path in stale:
        print(path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made()[path])
    return 1 if check and stale else 0


def made():
    """{path: text} of all pages."""
    pages = {}
    for command, (module, title) in COMMANDS.items():
        parser = importlib.import_module(f"papaya_pool.{module}").parser()
        assert parser.prog == command
        pages[SHARE / "man1" / f"{command}.1"] = man(parser, title)
        pages[SHARE / "bash" / command] = bash(parser)
    return pages


def is_current(path, text):
    return path.exists() and path.read_text() == text


# --- what a parser knows -------------------------------------------------------------


def verbs(parser):
    """{name: (parser, help)} of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = {each.dest: each.help for each in action._choices_actions}
            return {name: (verb, words[name]) for name, verb in action.choices.items()}
    return {}


def flags(parser):
    return [action for action in parser._actions if action.option_strings]


def positionals(parser):
    found = [action for action in parser._actions if not action.option_strings]
    return [a for a in found if not isinstance(a, argparse._SubParsersAction)]


def words_of(parser, action):
    """Its help, with %(default)s and the like filled in."""
    return parser._get_formatter()._expand_help(action) if action.help else ""


def metavar(action):
    return action.metavar or action.dest.upper()


# --- a man page ----------------------------------------------------------------------


_ROFF = {"\\": "\\e", "-": "\\-", "`": "\\(ga", "'": "\\(aq", "~": "\\(ti", "^": "\\(ha"}


def man(parser, title):
    from papaya_pool import __version__

    name = parser.prog
    out = [
        f'.\\" {MADE}',
        f'.TH {roff(name.upper())} 1 "" "papaya-pool {__version__}" "papaya-pool"',
        *(".SH NAME", f"{roff(name)} \\- {roff(title)}"),
        *(".SH SYNOPSIS", ".nh", ".ad l", f".B {roff(name)}", *synopsis(parser), ".ad b", ".hy"),
        *(".SH DESCRIPTION", *paragraphs(parser.description)),
        *(".SH OPTIONS", *entries(parser, [*positionals(parser), *flags(parser)])),
    ]
    if verbs(parser):
        out.append(".SH COMMANDS")
        common = {flag for action in flags(parser) for flag in action.option_strings}
        for verb, (parsed, words) in verbs(parser).items():
            own = [a for a in flags(parsed) if a.option_strings[0] not in common]
            given = [f"\\fI{roff(shape(a))}\\fR" for a in positionals(parsed)]
            out += [".TP", " ".join([f"\\fB{roff(verb)}\\fR", *given]), roff(words)]
            if own:
                out += [".RS", *entries(parsed, own), ".RE"]
    out += sections(parser.epilog or "")
    others = [f".BR {roff(other)} (1)" for other in sorted(COMMANDS) if other != name]
    return "\n".join([*out, ".SH SEE ALSO", " ,\n".join(others)]) + "\n"


def synopsis(parser):
    """One line for each option, or for those of which only one may be given."""
    groups = {id(a): g for g in parser._mutually_exclusive_groups for a in g._group_actions}
    done = set()
    for action in flags(parser):
        group = groups.get(id(action))
        if id(group or action) in done or action.help == argparse.SUPPRESS:
            continue
        done.add(id(group or action))
        yield f"[{' | '.join(usage(a) for a in (group._group_actions if group else [action]))}]"
    yield from (f"\\fI{roff(shape(action))}\\fR" for action in positionals(parser))
    if verbs(parser):
        yield "\\fICOMMAND\\fR ..."


def usage(action):
    return " ".join([f"\\fB{roff(action.option_strings[-1])}\\fR", *value(action)])


def value(action):
    if action.nargs == 0:
        return []
    several = " ..." if action.nargs == "+" else ""
    return [f"\\fI{roff(metavar(action))}\\fR{several}"]


def shape(action):
    name = metavar(action)
    return {"?": f"[{name}]", "*": f"[{name} ...]"}.get(action.nargs, name)


def entries(parser, actions):
    for action in actions:
        names = ", ".join(f"\\fB{roff(flag)}\\fR" for flag in action.option_strings)
        yield ".TP"
        yield " ".join([names, *value(action)]) if names else f"\\fI{roff(metavar(action))}\\fR"
        yield roff(words_of(parser, action)) or "\\&"


def sections(epilog):
    """A paragraph each: `title:`, then lines of `  term  words`, or `title: words`."""
    for paragraph in filter(None, re.split(r"\n\s*\n", epilog.strip())):
        first, *rest = paragraph.split("\n")
        title, _, words = first.partition(":")
        yield f".SH {roff(title.upper().replace('EXIT CODES', 'EXIT STATUS'))}"
        yield from [roff(words.strip())] if words.strip() else []
        for line in rest:
            term, _, words = line.strip().partition("  " if "  " in line.strip() else " ")
            yield from (".TP", f"\\fB{roff(term)}\\fR", roff(words.strip()))


def paragraphs(text):
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        yield from [".PP"] if number else []
        line = " ".join(paragraph.split())
        # A sentence begins a line: roff puts the right space behind each.
        yield roff(re.sub(r"(?<=[.:]) (?=[A-Z])", "\n", line))


def roff(text):
    """As text and nothing else, on whatever line it comes to stand."""
    text = "".join(_ROFF.get(char, char) for char in text)
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


# --- a completion --------------------------------------------------------------------

_BASH = """\
# bash completion for {name}
# {made}

{function}()
{{
    local i cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} verb= words=
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $prev == "=" ]]; then
        prev=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            {valued}) ((i++)) ;;
            -* | =) ;;
            *) verb=${{COMP_WORDS[i]}} && break ;;
        esac
    done
    case $prev in
{values}
    esac
    case $verb in
{verbs}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}}
complete -F {function} {name}
"""


def bash(parser):
    commands = {name: verb for name, (verb, _) in verbs(parser).items()}
    valued = {}
    for each in [parser, *commands.values()]:
        for action in (a for a in flags(each) if a.nargs != 0):
            pattern, code = " | ".join(action.option_strings), f"{offer(action)}\nreturn"
            assert valued.setdefault(pattern, code) == code, "one option, two meanings"
    first = {'""': behind(parser), **{name: behind(verb) for name, verb in commands.items()}}
    if not commands:
        first["*"] = f'words="{options(parser)}"'
    return _BASH.format(
        name=parser.prog,
        made=MADE,
        function="_" + parser.prog.replace("-", "_"),
        valued=" | ".join(valued),
        values=cases(valued),
        verbs=cases(first),
    )


def offer(action):
    """Bash that offers values for an option or a positional."""
    if action.choices:
        given = " ".join(action.choices)
        return f'mapfile -t COMPREPLY < <(compgen -W "{given}" -- "$cur")'
    return OFFERS.get(action.metavar, "") if action.metavar != "ROOM" else ""


def behind(parser):
    """Bash that offers the first word that is no option's value."""
    others = f'words="{" ".join(verbs(parser))}"' if verbs(parser) else ""
    for action in positionals(parser)[:1]:
        others = OFFERS.get(action.metavar, "")
    if not others:
        return f'words="{options(parser)}"'
    return (
        f'if [[ $cur == -* ]]; then\n    words="{options(parser)}"\n'
        f"else\n{indent(others, 4)}\nfi"
    )


def options(parser):
    return " ".join(flag for action in flags(parser) for flag in action.option_strings)


def cases(table):
    """The arms of a case; those that do the same are one."""
    patterns = {}
    for pattern, code in table.items():
        patterns.setdefault(code.strip(), []).append(pattern)
    return "\n".join(
        f"        {' | '.join(alike)})\n{indent(code, 12)}\n            ;;"
        for code, alike in patterns.items()
    )


def indent(text, by):
    return "\n".join(" " * by + line for line in text.split("\n"))


if __name__ == "__main__":
    sys.exit(main())
