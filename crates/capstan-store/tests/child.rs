//! Tests in two processes: a test starts itself again, and in the child plays the other part.

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Says to a test that it is the child, and where to work.
const WORKPLACE: &str = "CAPSTAN_STORE_TEST_CHILD";

/// In the child: the directory it was given.
pub(crate) fn workplace() -> Option<PathBuf> {
    env::var_os(WORKPLACE).map(Into::into)
}

/// In the child: tells the parent something. Fails when the parent is gone.
pub(crate) fn tell(line: &str) {
    // Not by `println!`, which the test harness would keep to itself. The harness may be in the middle of a line.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// In the parent: the child, killed at the end.
pub(crate) struct Spawned {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Starts `test` again as a child, through `shell` if that is not empty.
pub(crate) fn spawn(test: &str, workplace: &Path, shell: &str) -> Spawned {
    let script = format!("{shell}\nexec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(WORKPLACE, workplace);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Spawned { child, lines }
}

impl Spawned {
    /// Waits for the next line that starts with `word`, and returns what follows; `None` at the end.
    pub(crate) fn hear(&mut self, word: &str) -> Option<String> {
        self.lines.find_map(|line| line.unwrap().strip_prefix(word).map(|rest| rest.trim().to_owned()))
    }

    /// Ends the child as `kill -9` does, and returns what it had still said after `word`.
    pub(crate) fn kill(mut self, word: &str) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.hear(word)).collect()
    }
}

impl Spawned {
    /// Waits for the child to end well, and returns all it said.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let said = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success(), "{said:?}");
        said
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
