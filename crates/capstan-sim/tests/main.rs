//! Scenarios over whole kernels, named by their numbers in the catalogues (`k…` kernel and vats, `r…` remotes).
#![expect(clippy::unwrap_used, reason = "tests")]

mod k_order;
mod k_promises;
mod k_reset;
mod k_routing;
mod k_services;
mod k_wakes;
mod k_workload;
mod pairs;
mod r_garbage;
mod r_limits;
mod r_links;
mod r_peers;
mod r_quota;
mod r_restart;
mod r_restart_more;
mod r_restart_rows;
mod r_restart_teardown;
mod r_sequencing;
mod r_sequencing_more;
mod r_workload;
mod storm;

/// Every file here is a module of this binary.
#[test]
fn every_file_is_listed() {
    let listed = include_str!("main.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") else { continue };
        assert!(listed.contains(&format!("mod {module};")), "{name} is not listed");
    }
}
