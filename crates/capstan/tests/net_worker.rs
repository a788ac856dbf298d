//! Daemons whose network is a process of its own (03 D.9): killed under load, orphaned, and what others can see of it.

use crate::shell::Shell;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The ceiling of a redemption, four times the ack timeout, and some time to start commands (03 F 142).
const CALL_SECONDS: &str = "50";
/// How long a process may take to notice that its daemon is gone: its network gives up closing after two seconds.
const ORPHAN_MAX: Duration = Duration::from_secs(10);
/// How long a process may hang before another one is there: it is asked every three seconds and has ten to answer.
const HANG_MAX: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Calls under way while networks die.
const CALLERS: usize = 3;
const CALLS: usize = 8;

/// A daemon with its network in another process.
struct Kernel {
    shell: Shell,
    peer: String,
    listen: Json,
}

impl Kernel {
    #[track_caller]
    fn start(handshake: &str) -> Kernel {
        let shell = Shell::new();
        let mut kernel = Kernel { shell, peer: String::new(), listen: Json::Null };
        kernel.start_again(handshake);
        kernel
    }

    #[track_caller]
    fn start_again(&mut self, handshake: &str) {
        let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--handshake", handshake];
        let start = [&["daemon", "start", "--network", "worker"], &listen[..]].concat();
        let started = self.shell.run(&start).done();
        self.peer = started["peerId"].as_str().unwrap_or_default().to_owned();
        self.listen = started["listen"].clone();
    }

    /// The process of the network that runs now; none while one is between its fork and its program, for it still
    /// bears the daemon's name then.
    fn worker(&self) -> Option<u32> {
        let daemon = self.shell.pid()?;
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        pids.find(|pid| {
            parent(*pid) == Some(daemon) && arguments(*pid).first().is_some_and(|word| word == "net-worker")
        })
    }

    /// Kills the process of the network and waits for the next one; returns it.
    #[track_caller]
    fn kill_worker(&self) -> u32 {
        let old = eventually("a network", || self.worker());
        kill(old);
        eventually("another network", || self.worker().filter(|new| *new != old))
    }

    #[track_caller]
    fn send(&self, call: &[&str]) -> Json {
        let arguments = [&["--no-spawn", "--timeout", CALL_SECONDS, "send"], call].concat();
        self.shell.run(&arguments).done()
    }

    fn send_later(&self, call: &[&str]) -> Child {
        let arguments = [&["--json", "--no-spawn", "--timeout", CALL_SECONDS, "send"], call].concat();
        let mut command = self.shell.command(&arguments);
        match command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn serve(&self, example: &str) -> (String, String) {
        let root = self.shell.launch_example(example);
        let issued = self.shell.run(&["url", "issue", &root]).done();
        (issued["url"].as_str().unwrap_or_default().to_owned(), root)
    }

    /// Nothing was rejected or set aside, no peer was taken for another life, the store is sound.
    #[track_caller]
    fn is_sound(&self) {
        assert_eq!(self.shell.run(&["dead-letters"]).done(), json!([]));
        let remotes = self.shell.run(&["remotes"]).done();
        for remote in remotes.as_array().into_iter().flatten() {
            assert_eq!(remote["restartsSeen"], json!(0), "{remote}");
        }
        assert_eq!(self.shell.run(&["fsck"]).done()["ok"], json!(true));
    }
}

/// Tells what the daemon saw when a test failed.
impl Drop for Kernel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.shell.home().join("daemon.log")).unwrap_or_default();
            eprintln!("--- {}\n{log}", self.peer);
        }
    }
}

/// The parent of a process; none of one that has ended, even if nobody has taken notice yet.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut after_name = stat.rsplit_once(") ")?.1.split(' ');
    let state = after_name.next()?;
    if state == "Z" { None } else { after_name.next()?.parse().ok() }
}

/// What a process was started with, behind the name of its program.
fn arguments(pid: u32) -> Vec<String> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split_terminator('\0').skip(1).map(str::to_owned).collect()
}

fn kill(pid: u32) {
    signal("-9", pid);
}

fn signal(which: &str, pid: u32) {
    let sent = Command::new("kill").args([which, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "no process {pid}");
}

#[track_caller]
fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(ORPHAN_MAX, what, look)
}

#[track_caller]
fn eventually_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn r142_calls_both_ways_survive_the_death_of_any_network(handshakes: (&str, &str)) {
    let (ann, bob) = (Kernel::start(handshakes.0), Kernel::start(handshakes.1));
    let ((to_ann, _), (to_bob, _)) = (ann.serve("counter.js"), bob.serve("counter.js"));
    for count in 1..=2 {
        assert_eq!(ann.send(&[&to_bob, "bump"]), json!(count));
        assert_eq!(bob.send(&[&to_ann, "bump"]), json!(count));
    }
    let (mut from_ann, mut from_bob) = (Vec::new(), Vec::new());
    for round in 0..CALLS {
        let calls: Vec<_> = (0..CALLERS)
            .map(|_| (ann.send_later(&[&to_bob, "bump"]), bob.send_later(&[&to_ann, "bump"])))
            .collect();
        if round % 2 == 0 { &ann } else { &bob }.kill_worker();
        for (anns, bobs) in calls {
            from_ann.push(answer(anns));
            from_bob.push(answer(bobs));
        }
    }
    // Every call was answered, and executed once.
    for answers in [&mut from_ann, &mut from_bob] {
        answers.sort_unstable();
        let expected: Vec<u64> = (3..).take(CALLS * CALLERS).collect();
        assert_eq!(*answers, expected);
    }
    let listen = |kernel: &Kernel| kernel.shell.run(&["daemon", "status"]).done()["listen"].clone();
    assert_eq!((listen(&ann), listen(&bob)), (ann.listen.clone(), bob.listen.clone()), "the ports stay");
    ann.is_sound();
    bob.is_sound();
}

#[track_caller]
fn answer(child: Child) -> u64 {
    match child.wait_with_output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}");
            text.trim().parse().unwrap_or_else(|error| panic!("{error}: {text}"))
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn r142_calls_both_ways_survive_the_death_of_any_network_between_session_kernels() {
    r142_calls_both_ways_survive_the_death_of_any_network(("session", "session"));
}

#[test]
fn r142_calls_both_ways_survive_the_death_of_any_network_between_classic_kernels() {
    r142_calls_both_ways_survive_the_death_of_any_network(("classic", "classic"));
}

#[test]
fn r142_what_waits_for_a_dead_peer_outlives_the_network() {
    let (ann, mut bob) = (Kernel::start("session"), Kernel::start("session"));
    let (to_bob, _) = bob.serve("counter.js");
    assert_eq!(ann.send(&[&to_bob, "bump"]), json!(1));
    bob.shell.kill();
    let waiting = ann.send_later(&[&to_bob, "bump"]);
    let pending = || {
        let remotes = ann.shell.run(&["remotes"]).done();
        remotes[0]["pending"].as_u64().filter(|pending| *pending > 0)
    };
    let before = eventually("the call is in the outbox", pending);
    ann.kill_worker();
    ann.kill_worker();
    assert_eq!(pending(), Some(before), "the outbox is intact");
    bob.start_again("session");
    assert_eq!(answer(waiting), 2);
    ann.is_sound();
    bob.is_sound();
}

/// Halted, it holds its socket open: nothing but its silence tells.
#[test]
fn r142_a_network_that_hangs_is_replaced() {
    let (ann, bob) = (Kernel::start("session"), Kernel::start("session"));
    let (to_bob, _) = bob.serve("counter.js");
    assert_eq!(ann.send(&[&to_bob, "bump"]), json!(1));
    let old = eventually("a network", || bob.worker());
    signal("-STOP", old);
    let waiting = ann.send_later(&[&to_bob, "bump"]);
    // No other comes before it has been silent for long.
    let new = eventually_within(HANG_MAX, "another network", || bob.worker().filter(|new| *new != old));
    assert!(parent(old).is_none() && parent(new).is_some());
    assert_eq!(answer(waiting), 2);
    ann.is_sound();
    bob.is_sound();
}

#[test]
fn r142_a_network_ends_when_its_daemon_is_killed_or_stopped() {
    let mut ann = Kernel::start("session");
    let worker = eventually("a network", || ann.worker());
    ann.shell.kill();
    eventually("the orphan has ended", || parent(worker).is_none().then_some(()));
    ann.start_again("session");
    let worker = eventually("a network", || ann.worker());
    assert_eq!(ann.shell.run(&["daemon", "stop"]).done(), json!({"stopped": true}));
    eventually("it has ended", || parent(worker).is_none().then_some(()));
}

#[test]
fn r169_the_seed_of_the_key_is_seen_nowhere() -> anyhow::Result<()> {
    let shell = Shell::new();
    let start = ["daemon", "start", "--network", "worker", "--log", "trace"];
    let started = shell.run(&start).done();
    let kernel = Kernel { shell, peer: started["peerId"].to_string(), listen: Json::Null };
    let worker = kernel.kill_worker();
    let store = rusqlite::Connection::open(kernel.shell.home().join("kernel.sqlite"))?;
    let seed: String =
        store.query_row("SELECT value FROM meta WHERE key = 'keySeed'", [], |row| row.get(0))?;
    assert_eq!(seed.len(), 64);
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    assert_eq!(arguments(worker), ["net-worker", "--log", "trace"]);
    assert!(!read(Path::new(&format!("/proc/{worker}/environ"))).contains(&seed));
    let log = read(&kernel.shell.home().join("daemon.log"));
    assert!(log.contains("net_worker: "), "the network logs here too: {log}");
    assert!(!log.contains(&seed));
    Ok(())
}

#[test]
fn a_network_without_a_daemon_says_so() {
    let shell = Shell::new();
    shell.run(&["net-worker"]).failed(1, "IO");
    shell.run(&["daemon", "start", "--network", "elsewhere"]).failed(2, "USAGE");
    shell.run(&["daemon", "start", "--network", "worker", "--no-network"]).failed(2, "USAGE");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let held = taken.and_then(std::net::TcpListener::bind);
    let port = held.as_ref().ok().and_then(|held| held.local_addr().ok()).map_or(0, |address| address.port());
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let why = shell.run(&["daemon", "start", "--network", "worker", "--listen", &listen]).failed(1, "IO");
    assert!(why.contains(&listen), "{why}");
}
