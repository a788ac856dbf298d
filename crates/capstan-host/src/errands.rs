//! What vats have the host do outside (04 §3): requests to the web and looks at files, each on a thread of its own.
//!
//! An errand whose vat has ended is not begun; one under way is cut, and its outcome is told to nobody.

use crate::driver::Post;
use crate::fetch;
use capstan_model::fetch::{FetchOutcome, FetchRequest};
use capstan_model::file::FileRequest;
use capstan_model::id::VatId;
use capstan_model::vat::{FileAccess, VatIncarnation};
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Errands under way at once; more fail.
const RUNNING_MAX: usize = 64;

/// Which errand of which run of a vat.
type Key = (VatId, VatIncarnation, Kind, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Fetch,
    Look,
}

/// Runs errands.
pub(crate) struct Errands {
    inbox: Sender<Post>,
    running: Running,
}

/// Those under way, with what cuts them: a look at a file is short.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<BTreeMap<Key, Option<ureq::Agent>>>>);

impl Errands {
    /// Outcomes go to `inbox`.
    pub(crate) fn new(inbox: Sender<Post>) -> Self {
        Errands { inbox, running: Running::default() }
    }

    /// Begins a request to the web; its outcome is told by [`Post::Fetched`].
    pub(crate) fn fetch(
        &self,
        vat: VatId,
        incarnation: VatIncarnation,
        id: u64,
        request: FetchRequest,
        hosts: Vec<Arc<str>>,
    ) {
        let agent = fetch::agent();
        let cuts = Some(agent.clone());
        let run = move || {
            let outcome = fetch::fetch(&agent, &request, &hosts);
            tracing::debug!(target: "vat", %vat, "fetch {} {}: {}", request.method, request.url, shown(&outcome));
            outcome
        };
        let tell = move |outcome| Post::Fetched { vat, incarnation, id, outcome };
        self.begin((vat, incarnation, Kind::Fetch, id), cuts, run, tell);
    }

    /// Begins to look at a file; what comes of it is told by [`Post::Looked`].
    pub(crate) fn look(
        &self,
        vat: VatId,
        incarnation: VatIncarnation,
        id: u64,
        request: FileRequest,
        access: FileAccess,
    ) {
        let run = move || capstan_js::look(&access, &request);
        let tell = move |outcome| Post::Looked { vat, incarnation, id, outcome };
        self.begin((vat, incarnation, Kind::Look, id), None, run, tell);
    }

    /// Cuts what a run of a vat has under way.
    pub(crate) fn cut(&self, vat: VatId, incarnation: VatIncarnation) {
        self.cut_where(|key| key.0 == vat && key.1 == incarnation);
    }

    fn cut_where(&self, is_meant: impl Fn(&Key) -> bool) {
        let mut cut = Vec::new();
        self.running.lock().retain(|key, agent| {
            let is_meant = is_meant(key);
            cut.extend(agent.take_if(|_| is_meant));
            !is_meant
        });
        cut.into_iter().for_each(ureq::Agent::shutdown);
    }

    fn begin<T: Send + 'static>(
        &self,
        key: Key,
        cuts: Option<ureq::Agent>,
        run: impl FnOnce() -> Result<T, String> + Send + 'static,
        tell: impl Fn(Result<T, String>) -> Post + Clone + Send + 'static,
    ) {
        // Without a loop nobody needs to know.
        let inbox = self.inbox.clone();
        let answer = move |outcome| drop(inbox.send(tell(outcome)));
        if !self.running.enter(key, cuts) {
            return answer(Err(format!("more than {RUNNING_MAX} requests are under way")));
        }
        let (running, refuse) = (self.running.clone(), answer.clone());
        let work = move || {
            let outcome = run();
            if running.leave(&key) {
                answer(outcome);
            }
        };
        if thread::Builder::new().name("errand".to_owned()).spawn(work).is_err() && self.running.leave(&key) {
            refuse(Err("the system gave no thread".to_owned()));
        }
    }
}

/// Those who would be told are gone.
impl Drop for Errands {
    fn drop(&mut self) {
        self.cut_where(|_| true);
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Option<ureq::Agent>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, key: Key, cuts: Option<ureq::Agent>) -> bool {
        let mut running = self.lock();
        let fits = running.len() < RUNNING_MAX;
        if fits {
            running.insert(key, cuts);
        }
        fits
    }

    /// Whether it was not cut meanwhile.
    fn leave(&self, key: &Key) -> bool {
        self.lock().remove(key).is_some()
    }
}

fn shown(outcome: &FetchOutcome) -> String {
    match outcome {
        Ok(response) => format!("{} with {} bytes", response.status, response.body.len()),
        Err(why) => why.clone(),
    }
}
