//! A home and the binary working on it. Its daemon ends with it.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The one JSON document on standard output.
    pub(crate) fn json(&self) -> Json {
        match serde_json::from_str(&self.stdout) {
            Ok(json) => json,
            Err(error) => panic!("{error}: {self:?}"),
        }
    }

    /// The document of a command that went well.
    #[track_caller]
    pub(crate) fn done(&self) -> Json {
        assert_eq!(self.code, 0, "{self:?}");
        self.json()
    }

    /// Checks that the command failed so, and returns the message.
    #[track_caller]
    pub(crate) fn failed(&self, exit: i32, code: &str) -> String {
        let json = self.json();
        let text = |pointer| json.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned();
        assert_eq!((self.code, text("/error/code").as_str()), (exit, code), "{self:?}");
        let message = text("/error/message");
        assert!(!message.is_empty(), "{self:?}");
        message
    }
}

/// A home, not yet made, and a directory for files.
pub(crate) struct Shell {
    dir: TempDir,
}

impl Shell {
    pub(crate) fn new() -> Shell {
        match tempfile::tempdir() {
            Ok(dir) => Shell { dir },
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Writes a file beside the home and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        assert!(std::fs::write(&path, text).is_ok(), "{}", path.display());
        path.to_string_lossy().into_owned()
    }

    /// Makes a directory beside the home.
    pub(crate) fn directory(&self, name: &str) {
        let path = self.dir.path().join(name);
        assert!(std::fs::create_dir_all(&path).is_ok(), "{}", path.display());
    }

    /// The command, not yet run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_capstan"));
        command
            .args(arguments)
            .env("CAPSTAN_HOME", self.home())
            .env_remove("CAPSTAN_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command with these arguments as they are.
    pub(crate) fn raw(&self, arguments: &[&str]) -> Ran {
        match self.command(arguments).output() {
            Ok(output) => Ran {
                code: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a command with `--json`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let all: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
        self.raw(&all)
    }

    /// Launches one of the examples and returns the kref of its root.
    pub(crate) fn launch_example(&self, name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let launched = self.run(&["launch", &path.to_string_lossy()]).done();
        launched.get("rootKref").and_then(Json::as_str).unwrap_or_default().to_owned()
    }

    /// The pid that the daemon wrote.
    pub(crate) fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.home().join("daemon.pid")).ok()?.trim().parse().ok()
    }

    /// Kills the daemon as a power failure would, and waits until it is gone.
    pub(crate) fn kill(&self) {
        let pid = self.pid().map(|pid| pid.to_string()).unwrap_or_default();
        let killed = Command::new("kill").args(["-9", &pid]).status();
        assert!(killed.is_ok_and(|status| status.success()), "no process {pid}");
        while self.run(&["daemon", "status"]).code == 0 {}
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.command(&["daemon", "stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
