//! The help of all commands as one file, so that a change to it is seen in review.

use std::fmt::Write;

fn help_of(command: &mut clap::Command, name: &str, out: &mut String) {
    let help = command.clone().term_width(100).render_long_help();
    let help = help.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let _ = writeln!(out, "==== {name}\n{}\n", help.trim_end());
    for inner in command.get_subcommands_mut() {
        let name = format!("{name} {}", inner.get_name());
        help_of(inner, &name, out);
    }
}

#[test]
fn the_help_of_all_commands_is_as_reviewed() -> anyhow::Result<()> {
    let mut command = capstan::cli::command();
    command.build();
    let mut help = String::new();
    help_of(&mut command, "capstan", &mut help);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/help.txt");
    if std::env::var_os("UPDATE_HELP").is_some() {
        std::fs::write(path, &help)?;
    }
    let reviewed = std::fs::read_to_string(path)?;
    assert!(
        help == reviewed,
        "help has changed: run this test with UPDATE_HELP=1 and review help.txt\n{help}"
    );
    Ok(())
}
