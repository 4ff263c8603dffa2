//! The commands and their options in Markdown, from what parses them.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

/// The page of all commands.
pub(super) fn markdown() -> String {
    let mut program = super::Cli::command();
    // Fills in what clap adds by itself.
    program.build();
    let mut page = String::from(
        "# The commands\n\nWritten by `fledgling schema --commands`. Exit codes: 0 done; 1 an error, or results that are not identical; 2 wrong usage or configuration; 3 a guarantee that an audit refuted; 130 interrupted.\n",
    );
    for command in visible(&program) {
        write(&mut page, "fledgling", command);
    }
    page
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let hidden = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    command.get_subcommands().filter(hidden)
}

fn write(page: &mut String, before: &str, command: &Command) {
    let name = format!("{before} {}", command.get_name());
    let about = text(command.get_about().map(ToString::to_string));
    // Writing to a string cannot be refused.
    let _ = writeln!(page, "\n## `{name}`\n{about}\n");
    let of_its_own = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help";
    let args: Vec<&Arg> = command.get_arguments().filter(of_its_own).collect();
    if !args.is_empty() {
        page.push_str("| argument | meaning |\n|---|---|\n");
        for arg in args {
            let help = text(arg.get_help().map(ToString::to_string));
            let defaults: Vec<_> = (arg.get_default_values().iter())
                .map(|value| value.to_string_lossy())
                .collect();
            let default = match (arg.get_action(), defaults.is_empty()) {
                (ArgAction::Set | ArgAction::Append, false) => {
                    format!(" [default: {}]", defaults.join(" "))
                }
                _ => String::new(),
            };
            let _ = writeln!(page, "| `{}` | {help}{default} |", usage(arg));
        }
    }
    for inner in visible(command) {
        write(page, &name, inner);
    }
}

/// How an argument is written.
fn usage(arg: &Arg) -> String {
    let values: Vec<String> = (arg.get_value_names().unwrap_or_default().iter())
        .map(ToString::to_string)
        .collect();
    let takes = arg.get_action().takes_values();
    let choices: Vec<String> = (arg.get_possible_values().iter())
        .filter(|value| takes && !value.is_hide_set())
        .map(|value| value.get_name().to_owned())
        .collect();
    let value = match (choices.is_empty(), takes) {
        (false, _) => choices.join("\\|"),
        (true, true) => values.join(" "),
        (true, false) => String::new(),
    };
    match (arg.get_long(), arg.is_required_set()) {
        (Some(long), _) => format!("--{long} {value}").trim_end().to_owned(),
        (None, true) => value,
        (None, false) => format!("[{value}]"),
    }
}

/// One line, fit for a table.
fn text(help: Option<String>) -> String {
    let help = help.unwrap_or_default();
    let words: Vec<&str> = help.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}
