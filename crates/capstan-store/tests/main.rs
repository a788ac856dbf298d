//! The store and its backends.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod child;
mod crash;
mod home;
mod overlay;
mod query;
mod rows;
mod sqlite;
mod writer;

#[test]
fn every_file_of_tests_is_compiled() {
    let listed = include_str!("main.rs");
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap();
        assert!(module == "main" || listed.contains(&format!("mod {module};\n")), "{module}");
    }
}
