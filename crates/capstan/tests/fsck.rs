//! `fsck`: of a store that runs and of one that does not.

use crate::shell::Shell;
use rusqlite::Connection;
use serde_json::{Value as Json, json};

fn damage(shell: &Shell, sql: &str) -> anyhow::Result<()> {
    let store = Connection::open(shell.home().join("kernel.sqlite"))?;
    anyhow::ensure!(store.execute(sql, [])? == 1, "nothing was damaged");
    Ok(())
}

/// The problems that are found, without their advice, which is never empty.
#[track_caller]
fn problems(shell: &Shell) -> Vec<(Json, Json, Json)> {
    let ran = shell.run(&["--no-spawn", "fsck"]);
    let report = ran.json();
    let found = report.get("problems").and_then(Json::as_array).cloned().unwrap_or_default();
    assert_eq!((ran.code == 0, report.get("ok")), (found.is_empty(), Some(&json!(found.is_empty()))));
    assert!(report.pointer("/checked/objects").and_then(Json::as_u64) > Some(0), "{report}");
    let field = |problem: &Json, name: &str| problem.get(name).cloned().unwrap_or_default();
    assert!(found.iter().all(|problem| field(problem, "advice").as_str() > Some("")), "{report}");
    found.iter().map(|p| (field(p, "invariant"), field(p, "where"), field(p, "what"))).collect()
}

#[test]
fn damage_is_found_while_the_daemon_runs_and_when_it_does_not() -> anyhow::Result<()> {
    let shell = Shell::new();
    let root = shell.launch_example("counter.js");
    assert_eq!(problems(&shell), []);

    damage(&shell, "INSERT INTO vat_store (vat, key, value) VALUES ('v9', 'key', 'value')")?;
    let store = (json!(9), json!("store of v9"), json!("v9 has no record"));
    assert_eq!(problems(&shell), std::slice::from_ref(&store));
    // What runs is not what was damaged.
    assert_eq!(shell.run(&["send", &root, "read"]).code, 0);

    shell.run(&["daemon", "stop"]).done();
    assert_eq!(problems(&shell), std::slice::from_ref(&store));
    damage(&shell, "UPDATE objects SET recognizable = recognizable + 1 WHERE kref = 'ko1'")?;
    let found = problems(&shell);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found.first().map(|(rule, place, _)| (rule, place)), Some((&json!(3), &json!("ko1"))));
    assert_eq!(found.last(), Some(&store));

    let people = shell.raw(&["--no-spawn", "fsck"]);
    assert_eq!(people.code, 1);
    let text = people.stdout;
    assert!(text.contains("invariant 9: store of v9: v9 has no record\n  advice: "), "{text}");
    assert!(text.contains("The store is damaged."), "{text}");
    Ok(())
}
