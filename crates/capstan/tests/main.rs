//! Tests of the binary, as scripts and people use it.

mod bench;
mod calls;
mod control;
mod daemons;
mod demo;
mod fsck;
mod help;
mod isolation;
mod kill_soak;
mod links;
mod net_worker;
mod peer_restart;
mod peers;
mod refusals;
mod shell;
mod socket;
mod sources;
mod vat_soak;

/// A file that nobody lists would never run.
#[test]
fn every_file_of_tests_is_listed() -> anyhow::Result<()> {
    let listed = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(listed.contains(&format!("mod {module};")), "{name} is not listed");
        }
    }
    Ok(())
}
