//! How a daemon that was started in the background tells its starter that it is ready: one line of JSON on what it
//! was given as standard input, a socket whose other end the starter reads.

use crate::error::CliError;
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// The end of the daemon. It gives up its standard input for it, so nothing of its starter's stays open.
#[derive(Debug)]
pub struct Announcement(File);

impl Announcement {
    /// Takes over standard input and leaves the starter's session.
    pub fn take() -> io::Result<Announcement> {
        let line = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        // Fails only for a process that leads a group already, which is as good.
        let _ = rustix::process::setsid();
        Ok(Announcement(line))
    }

    /// Says that commands are accepted.
    pub fn ready(mut self, status: &Json) {
        self.say(&json!({ "ready": status }));
    }

    /// Says why there will be no daemon.
    pub fn failed(mut self, error: &CliError) {
        let mut document = error.document();
        if let Some(error_object) = document.get_mut("error").and_then(Json::as_object_mut) {
            error_object.insert("hints".into(), json!(error.hints));
        }
        self.say(&document);
    }

    /// The starter may have gone; then nobody is interested.
    fn say(&mut self, line: &Json) {
        let _ = writeln!(self.0, "{line}");
    }
}
