"""Completion for bash and zsh: commands, options, their choices, files and folders."""

from __future__ import annotations

from argparse import ArgumentParser

from tools.manuals.commands import Argument, Command, read

_BASH = """\
# Completion of sgpud for bash. Made by `python -m tools.manuals`.

# What the running sgpud has, or nothing: whoever presses Tab does not wait for it.
_sgpud_names() {{
    local kind
    for kind in "$@"; do
        timeout 2 "${{COMP_WORDS[0]}}" status --names "$kind" 2>/dev/null
    done
}}

_sgpud() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command= word values= options= kind=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            {names}) command=$word && break ;;
        esac
    done
    case $command,$before in
{values}
    esac
    if [ -z "$kind$values" ]; then
        case $command in
{commands}
        esac
        if [[ $current == -* ]]; then
            values=$options kind=
        fi
    fi
    COMPREPLY=()
    case $kind in
        file) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        folder) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        names) mapfile -t COMPREPLY < <(compgen -W "$(_sgpud_names $values)" -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$values" -- "$current") ;;
    esac
    case $kind in
        file | folder) compopt -o filenames 2>/dev/null ;;
    esac
}}

complete -F _sgpud sgpud
"""
_ZSH = """\
#compdef sgpud
# Completion of sgpud for zsh. Made by `python -m tools.manuals`.

# What the running sgpud has, or nothing: whoever presses Tab does not wait for it.
_sgpud_names() {{
    local kind
    local -a found
    for kind in "$@"; do
        found+=(${{(f)"$(timeout 2 sgpud status --names $kind 2>/dev/null)"}})
    done
    compadd -a found
}}

_sgpud() {{
    local context state state_descr line
    typeset -A opt_args
    _arguments -C {program} '1: :->command' '*:: :->argument'
    case $state in
        command)
            local -a commands=(
{names}
            )
            _describe command commands
            ;;
        argument)
            case $words[1] in
{commands}
            esac
            ;;
    esac
}}

_sgpud "$@"
"""


def bash(parser: ArgumentParser) -> str:
    """The completion for bash."""
    program, *commands = read(parser)
    names = [command.name for command in commands]
    return _BASH.format(
        names="|".join(names),
        values="\n".join(_bash_value(c, option) for c in commands for option in _valued(c)),
        commands="\n".join((_bash_program(program, names), *map(_bash_command, commands))),
    )


def zsh(parser: ArgumentParser) -> str:
    """The completion for zsh."""
    program, *commands = read(parser)
    return _ZSH.format(
        program=" ".join(map(_zsh_argument, program.options)),
        names="\n".join(f"                {_quoted(f'{c.name}:{c.text}')}" for c in commands),
        commands="\n".join(map(_zsh_command, commands)),
    )


def _valued(command: Command) -> list[Argument]:
    return [option for option in command.options if option.value]


def _bash_value(command: Command, option: Argument) -> str:
    """What may follow an option."""
    pattern = "|".join(f"{command.name},{flag}" for flag in option.flags)
    return f"        {pattern}) {_bash_kind(option)} ;;"


def _bash_kind(argument: Argument) -> str:
    # A value that cannot be guessed is offered as nothing, not as an option.
    kind = argument.path or ("names" if argument.names else "text")
    return f"kind={kind} values='{' '.join(argument.choices or argument.names)}'"


def _bash_program(program: Command, names: list[str]) -> str:
    return f"            '') values='{' '.join(names)}' options='{_flags(program)}' ;;"


def _bash_command(command: Command) -> str:
    kind = f"{_bash_kind(command.words[0])} " if command.words else f"values='{_flags(command)}' "
    return f"            {command.name}) {kind}options='{_flags(command)}' ;;"


def _flags(command: Command) -> str:
    return " ".join(flag for option in command.options for flag in option.flags)


def _zsh_command(command: Command) -> str:
    arguments = " ".join(map(_zsh_argument, command.arguments))
    return f"                {command.name}) _arguments {arguments} ;;"


def _zsh_argument(argument: Argument) -> str:
    kind = {"file": "_files", "folder": "_files -/"}.get(argument.path, "")
    if argument.names:
        kind = f"_sgpud_names {' '.join(argument.names)}"
    if argument.choices:
        kind = f"({' '.join(argument.choices)})"
    if not argument.flags:
        # An action that begins with a space gets no arguments but its own.
        kind = f" {kind}" if argument.names else kind
        return _quoted(f"*:{argument.value}:{kind}")
    value = f":{argument.value.replace(':', ' ')}:{kind}" if argument.value else ""
    explained = argument.text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    return " ".join(_quoted(f"*{flag}[{explained}]{value}") for flag in argument.flags)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
