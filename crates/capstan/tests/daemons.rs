//! Starting, stopping, killing and purging daemons.

use crate::shell::Shell;
use serde_json::{Value as Json, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o777)
}

#[test]
fn k208_a_daemon_starts_stops_and_is_purged() {
    let shell = Shell::new();
    let started = shell.run(&["daemon", "start"]).done();
    let keys: Vec<&String> = started.as_object().into_iter().flat_map(|object| object.keys()).collect();
    assert_eq!(keys, ["pid", "peerId", "listen", "incarnation", "home"]);
    assert_eq!(started.get("pid").and_then(Json::as_u64), shell.pid().map(u64::from));
    assert_eq!(started.get("home"), Some(&json!(shell.home().to_string_lossy())));
    let address = started.pointer("/listen/0").and_then(Json::as_str).unwrap_or_default();
    let peer = started.get("peerId").and_then(Json::as_str).unwrap_or_default();
    assert!(address.starts_with("/ip4/127.0.0.1/tcp/") && address.ends_with(&format!("/p2p/{peer}")));
    assert_eq!(shell.run(&["daemon", "start"]).done(), started);
    let status = shell.run(&["daemon", "status"]).done();
    assert!(status.get("uptimeSeconds").is_some_and(Json::is_u64), "{status}");
    assert_eq!(shell.run(&["identity", "show"]).done(), json!({"peerId": peer}));
    assert_eq!(mode(&shell.home()), 0o700);
    for name in ["daemon.sock", "daemon.pid", "daemon.log", "kernel.sqlite"] {
        assert_eq!(mode(&shell.home().join(name)), 0o600, "{name}");
    }
    let log = shell.run(&["daemon", "logs"]).done();
    assert!(log.to_string().contains("Daemon started."), "{log}");

    assert_eq!(shell.run(&["daemon", "stop"]).done(), json!({"stopped": true}));
    assert!(!shell.home().join("daemon.pid").exists() && !shell.home().join("daemon.sock").exists());
    shell.run(&["daemon", "stop"]).failed(3, "NO_DAEMON");
    let again = shell.run(&["daemon", "start"]).done();
    assert_eq!(
        (again.get("peerId"), again.get("incarnation")),
        (started.get("peerId"), started.get("incarnation"))
    );
    assert_eq!(shell.run(&["daemon", "purge", "--force"]).done(), json!({"purged": true}));
    for name in ["daemon.sock", "daemon.pid", "daemon.log", "kernel.sqlite", "kernel.sqlite-wal"] {
        assert!(!shell.home().join(name).exists(), "{name}");
    }
    assert_ne!(shell.run(&["identity", "show"]).done(), json!({"peerId": peer}));
}

#[test]
fn k209_a_second_daemon_is_refused_and_a_dead_one_is_succeeded() {
    let shell = Shell::new();
    let root = shell.launch_example("counter.js");
    let second = shell.run(&["daemon", "start", "--foreground"]);
    assert!(second.failed(1, "IO").contains("another daemon is running"), "{second:?}");
    // The refusal comes before the store: a file that is none is not even looked at.
    let store = shell.home().join("kernel.sqlite");
    let real = shell.home().join("real.sqlite");
    let moved = std::fs::rename(&store, &real).and_then(|()| std::fs::write(&store, "no database"));
    assert!(moved.is_ok(), "{moved:?}");
    let again = shell.run(&["daemon", "start", "--foreground"]);
    assert!(again.failed(1, "IO").contains("another daemon is running"), "{again:?}");
    assert!(std::fs::rename(&real, &store).is_ok());
    assert_eq!(shell.run(&["send", &root, "bump"]).done(), json!(1));
    shell.kill();
    assert!(shell.home().join("daemon.pid").exists() && shell.home().join("daemon.sock").exists());
    shell.run(&["daemon", "status"]).failed(3, "NO_DAEMON");
    assert_eq!(shell.run(&["send", &root, "bump"]).done(), json!(2));
}

#[test]
fn k210_commands_that_race_start_one_daemon() -> anyhow::Result<()> {
    let shell = Shell::new();
    let commands = (0..6).map(|_| {
        shell.command(&["--json", "daemon", "start"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    });
    let commands = commands.collect::<Result<Vec<_>, _>>()?;
    let mut pids = Vec::new();
    for command in commands {
        let output = command.wait_with_output()?;
        let json: Json = serde_json::from_slice(&output.stdout)?;
        pids.push(json.get("pid").and_then(Json::as_u64));
    }
    assert!(pids.iter().all(|pid| pid.is_some() && *pid == shell.pid().map(u64::from)), "{pids:?}");
    Ok(())
}

#[test]
fn a_purge_after_a_kill_can_keep_the_keys() {
    let shell = Shell::new();
    let before = shell.run(&["daemon", "start"]).done();
    let root = shell.launch_example("counter.js");
    shell.kill();
    assert_eq!(shell.run(&["daemon", "purge", "--force", "--keep-identity"]).done(), json!({"purged": true}));
    let after = shell.run(&["daemon", "start"]).done();
    assert_eq!(before.get("peerId"), after.get("peerId"));
    assert_ne!(before.get("incarnation"), after.get("incarnation"));
    assert_eq!(shell.run(&["vats"]).done(), json!([]));
    shell.run(&["send", &root, "read"]).failed(1, "OBJECT_DELETED");
}

#[test]
fn signals_stop_a_daemon_in_order() -> anyhow::Result<()> {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let shell = Shell::new();
        let mut command = shell.command(&["daemon", "start", "--foreground"]);
        let mut daemon = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        while shell.run(&["daemon", "status"]).code != 0 {}
        std::process::Command::new("kill").args([signal, &daemon.id().to_string()]).status()?;
        assert_eq!(daemon.wait()?.code(), Some(0), "{signal}");
        assert!(!shell.home().join("daemon.pid").exists());
        let log = std::fs::read_to_string(shell.home().join("daemon.log"))?;
        assert!(log.trim_end().ends_with("Daemon stopped."), "{log}");
    }
    Ok(())
}

#[test]
fn a_home_that_is_open_to_others_and_holds_other_files_is_left_alone() -> anyhow::Result<()> {
    let shell = Shell::new();
    std::fs::create_dir(shell.home())?;
    std::fs::set_permissions(shell.home(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(shell.home().join("letter.txt"), "dear")?;
    shell.run(&["daemon", "start"]).failed(1, "IO");
    shell.run(&["daemon", "purge", "--force"]).failed(1, "IO");
    assert_eq!(mode(&shell.home()), 0o755);
    Ok(())
}

#[test]
fn a_home_with_a_long_path_works() -> anyhow::Result<()> {
    let shell = Shell::new();
    let long = shell.home().join("x".repeat(120));
    let home = long.to_string_lossy().into_owned();
    shell.run(&["--home", &home, "daemon", "start"]).done();
    let status = shell.run(&["--home", &home, "--no-spawn", "status"]).done();
    assert_eq!(status.get("vats"), Some(&json!(0)));
    assert_eq!(shell.run(&["--home", &home, "daemon", "stop"]).done(), json!({"stopped": true}));
    Ok(())
}

#[test]
fn r9_the_status_tells_identity_only_connected_or_neither() {
    let shell = Shell::new();
    let started = shell.run(&["daemon", "start", "--no-network"]).done();
    assert_eq!(started.get("listen"), Some(&json!([])));
    let comms = |shell: &Shell| shell.run(&["rpc", "getStatus"]).done().get("remoteComms").cloned();
    let peer = started.get("peerId");
    assert_eq!(comms(&shell), Some(json!({"state": "identity-only", "peerId": peer})));
    let root = shell.launch_example("counter.js");
    assert_eq!(shell.run(&["send", &root, "bump"]).done(), json!(1));
    let foreign = "ocap:z2uFdqT7F9Yx1CbJgkBAu7wKZ6Hh8Vv3rQ9kN5mPsLx\
                   @12D3KooWBhvxmvKdTYGJvXjKGBp7ybLvfBWCAfPWAq1NJEwS6Aeu";
    shell.run(&["url", "redeem", foreign]).failed(1, "PEER_UNREACHABLE");
    shell.run(&["daemon", "stop"]).done();
    shell.run(&["rpc", "getStatus", "--no-spawn"]).failed(3, "NO_DAEMON");
    let started = shell.run(&["daemon", "start"]).done();
    let listen = started.get("listen");
    assert!(listen.is_some_and(|listen| listen != &json!([])), "{started}");
    assert_eq!(started.get("peerId"), peer);
    assert_eq!(comms(&shell), Some(json!({"state": "connected", "peerId": peer, "listenAddresses": listen})));
}

#[test]
fn a_listener_that_cannot_be_bound_is_an_error_and_no_daemon() {
    let shell = Shell::new();
    shell.run(&["daemon", "start", "--listen", "/ip4/127.0.0.1/tcp/notaport"]).failed(1, "IO");
    shell.run(&["daemon", "status"]).failed(3, "NO_DAEMON");
}

#[test]
fn a_backup_is_restored_into_an_empty_home_as_a_new_life() {
    let (shell, other) = (Shell::new(), Shell::new());
    let root = shell.launch_example("counter.js");
    assert_eq!(shell.run(&["send", &root, "bump", "7"]).done(), json!(7));
    let file = shell.file("occupied", "");
    shell.run(&["backup", &file]).failed(1, "IO");
    let file = format!("{file}.backup");
    let copied = shell.run(&["backup", &file]).done();
    let length = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    assert_eq!(copied.get("bytes"), Some(&json!(length)));
    assert_eq!(mode(std::path::Path::new(&file)), 0o600);
    let before = shell.run(&["daemon", "status"]).done();
    shell.run(&["daemon", "stop"]).done();
    shell.run(&["restore", &file]).failed(1, "IO");

    assert_eq!(other.run(&["restore", &file]).done(), copied);
    other.run(&["daemon", "status"]).failed(3, "NO_DAEMON");
    assert_eq!(other.run(&["send", &root, "read"]).done(), json!(7));
    let after = other.run(&["daemon", "status"]).done();
    assert_eq!(before.get("peerId"), after.get("peerId"));
    assert_ne!(before.get("incarnation"), after.get("incarnation"));
}

#[test]
fn r5_an_identity_is_written_down_as_words_and_made_again_elsewhere() {
    let (shell, other) = (Shell::new(), Shell::new());
    let peer = shell.run(&["identity", "show"]).done();
    let phrase = shell.run(&["identity", "backup"]).done();
    let words = phrase.get("mnemonic").and_then(Json::as_str).unwrap_or_default().to_owned();
    assert_eq!(words.split(' ').count(), 12, "{phrase}");
    shell.run(&["identity", "backup"]).failed(1, "IO");

    let file = other.file("phrase", &format!("  {}\n", words.replace(' ', "\n")));
    let spoilt = other.file("spoilt", &words.replacen(' ', " abandon ", 1));
    other.run(&["identity", "restore", "--mnemonic-file", &spoilt]).failed(2, "USAGE");
    other.run(&["identity", "restore", "--mnemonic-file", "/nowhere"]).failed(1, "IO");
    assert_eq!(other.run(&["identity", "restore", "--mnemonic-file", &file]).done(), peer);
    other.run(&["daemon", "status"]).failed(3, "NO_DAEMON");
    other.run(&["identity", "restore", "--mnemonic-file", &file]).failed(1, "IO");
    assert_eq!(other.run(&["identity", "show"]).done(), peer);
    // What was restored can be written down once more, also after a purge that keeps the keys.
    other.run(&["daemon", "purge", "--force", "--keep-identity"]).done();
    assert_eq!(other.run(&["identity", "backup"]).done(), phrase);
    let told = shell.run(&["daemon", "status"]).done();
    assert_ne!(other.run(&["daemon", "status"]).done().get("incarnation"), told.get("incarnation"));
}

#[test]
fn a_daemon_that_lost_its_socket_is_stopped_all_the_same() -> anyhow::Result<()> {
    let shell = Shell::new();
    shell.run(&["daemon", "start"]).done();
    std::fs::remove_file(shell.home().join("daemon.sock"))?;
    assert_eq!(shell.run(&["daemon", "stop"]).done(), json!({"stopped": true}));
    shell.run(&["daemon", "status"]).failed(3, "NO_DAEMON");
    Ok(())
}

#[test]
fn a_pid_file_of_a_stranger_is_not_believed() -> anyhow::Result<()> {
    let shell = Shell::new();
    shell.run(&["daemon", "start"]).done();
    shell.kill();
    // The pid was reused by a process that has nothing to do with us: this one.
    std::fs::write(shell.home().join("daemon.pid"), std::process::id().to_string())?;
    shell.run(&["daemon", "stop"]).failed(3, "NO_DAEMON");
    assert_eq!(shell.run(&["daemon", "purge", "--force"]).done(), json!({"purged": true}));
    Ok(())
}

#[test]
fn a_port_in_use_is_said_once() {
    let (one, two) = (Shell::new(), Shell::new());
    let started = one.run(&["daemon", "start"]).done();
    let address = started.pointer("/listen/0").and_then(Json::as_str).unwrap_or_default();
    let address = address.split("/p2p/").next().unwrap_or_default();
    let message = two.run(&["daemon", "start", "--listen", address]).failed(1, "IO");
    assert_eq!(message.matches("cannot listen on").count(), 1, "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_may_open_as_many_files_as_the_system_allows_it() {
    let shell = Shell::new();
    let start = shell.command(&["daemon", "start", "--no-network"]);
    let mut narrow = std::process::Command::new("sh");
    narrow.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]).arg(start.get_program()).args(start.get_args());
    narrow.env("CAPSTAN_HOME", shell.home()).stdout(Stdio::null());
    assert!(narrow.status().is_ok_and(|status| status.success()));
    let pid = shell.pid().unwrap_or_else(|| panic!("no daemon"));
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let words: Vec<&str> = files.split_whitespace().collect();
    assert!(matches!(words[..], [_, _, _, soft, hard, _] if soft == hard), "{limits}");
}
