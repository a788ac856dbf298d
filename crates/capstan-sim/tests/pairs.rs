//! Who meets whom: pairs of kernels, and a kernel with a scripted peer.

use capstan_kernel::kernel::Generation::{self, Classic, Session};
use capstan_model::id::{EndpointId, KRef, ObjectId, RemoteId};
use capstan_model::peer::Incarnation;
use capstan_model::refs::{ERef, RRef};
use capstan_sim::scripted;
use capstan_sim::stranger::{Stranger, message};
use capstan_sim::world::{KernelId, World};
use capstan_store::schema::{ClistByEref, PeerIncarnations, RemoteRow, Remotes, SessionRow, Sessions};
use serde_json::{Value, json};

/// Every pair of generations that can meet.
pub(crate) const PAIRS: [(Generation, Generation); 3] =
    [(Session, Session), (Session, Classic), (Classic, Classic)];

/// Two kernels; Bob's counter is behind a URL.
pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) ann: KernelId,
    pub(crate) bob: KernelId,
    pub(crate) url: String,
    /// Both speak the session generation.
    pub(crate) session: bool,
}

pub(crate) fn pair(seed: u64, (ann, bob): (Generation, Generation)) -> Pair {
    let mut world = World::seeded(seed);
    let session = ann == Session && bob == Session;
    let (ann, bob) = (world.kernel_of("ann", ann), world.kernel_of("bob", bob));
    let counter = world.vat(bob, scripted::counter());
    let url = world.issue(bob, counter);
    Pair { world, ann, bob, url, session }
}

/// How many handshakes `from` began with `to`.
pub(crate) fn handshakes(world: &World, from: KernelId, to: KernelId) -> usize {
    let begins = |text: &&std::sync::Arc<str>| text.starts_with("{\"method\":\"handshake\",");
    world.frames(from, to).iter().filter(begins).count()
}

/// A kernel whose one peer is a stranger who holds its puppet.
pub(crate) struct Meeting {
    pub(crate) world: World,
    pub(crate) bob: KernelId,
    pub(crate) puppet: ObjectId,
    pub(crate) dee: Stranger,
    /// How Dee writes the puppet.
    pub(crate) target: String,
    pub(crate) url: String,
    /// Both speak the session generation.
    pub(crate) session: bool,
    channels: u64,
}

/// Before anything was said.
pub(crate) fn strangers(seed: u64, (bob, dee): (Generation, Generation)) -> Meeting {
    let mut world = World::seeded(seed);
    let session = bob == Session && dee == Session;
    let bob = world.bare_kernel("bob", bob);
    let puppet = world.vat(bob, scripted::puppet());
    let url = world.issue(bob, puppet);
    let dee = Stranger::new("dee", dee == Session, bob);
    Meeting { world, bob, puppet, dee, target: String::new(), url, session, channels: 0 }
}

/// After Dee has redeemed the puppet's URL.
pub(crate) fn meeting(seed: u64, generations: (Generation, Generation)) -> Meeting {
    let mut meeting = strangers(seed, generations);
    meeting.connect_until_registered();
    meeting.target = meeting.redeem();
    meeting
}

impl Meeting {
    /// Dee opens another channel; returns the verdict.
    #[track_caller]
    pub(crate) fn connect(&mut self, dialed: bool) -> capstan_wire::seam::Verdict {
        self.channels += 1;
        // Channel numbers of a life only rise; those of the test are never used twice.
        let channel = self.channels;
        self.dee.connect(&mut self.world, channel, dialed)
    }

    #[track_caller]
    pub(crate) fn connect_until_registered(&mut self) {
        let mut verdict = self.connect(false);
        if verdict == capstan_wire::seam::Verdict::Restarted {
            assert!(!self.session, "a session peer is never refused for a restart");
            verdict = self.connect(false);
        }
        assert_eq!(verdict, capstan_wire::seam::Verdict::Register);
    }

    /// Dee loses everything and comes back.
    #[track_caller]
    pub(crate) fn dee_restarts(&mut self) {
        self.dee.hang_up(&mut self.world);
        self.dee.wipe("dee-2");
        self.connect_until_registered();
    }

    /// Dee redeems the URL; returns how she writes the object.
    #[track_caller]
    pub(crate) fn redeem(&mut self) -> String {
        let url = self.url.clone();
        self.dee.send(&mut self.world, "redeemURL", json!([url, "key-of-dee"]));
        let heard = self.dee.heard(&mut self.world);
        let reply = heard.iter().rev().find(|text| text.contains("redeemURLReply")).expect("a reply");
        let reply: Value = serde_json::from_str(reply).unwrap();
        let name = reply["params"][2].as_str().unwrap();
        self.dee.acknowledge(&mut self.world);
        name.replace('+', "-")
    }

    /// Dee calls the puppet.
    pub(crate) fn dee_calls(&mut self, body: &str, slots: &[&str], result: Option<&str>) {
        let params = message(&self.target, body, slots, result);
        self.dee.send(&mut self.world, "deliver", params);
    }

    /// The puppet does something with texts.
    #[track_caller]
    pub(crate) fn puppet(&mut self, method: &str, args: &[&str]) {
        use capstan_sim::passable::Passable;
        let args = args.iter().map(|arg| arg.value()).collect();
        self.world.call_with(self.bob, self.puppet, method, args).succeeds();
    }

    /// What became of a promise that the puppet watches.
    pub(crate) fn seen(&self, name: &str) -> Option<String> {
        self.world.stored(self.bob, self.puppet, &format!("seen.{name}")).map(|text| text.to_string())
    }

    /// Dee reads and acknowledges what is still under way; then nothing may be left.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        self.world.advance(100);
        self.dee.heard(&mut self.world);
        self.dee.acknowledge(&mut self.world);
        self.world.assert_quiescent();
    }

    pub(crate) fn rid(&self) -> RemoteId {
        self.world.remote(self.bob, &self.dee.peer).expect("a remote for Dee")
    }

    pub(crate) fn endpoint(&self) -> EndpointId {
        EndpointId::Remote(self.rid())
    }

    pub(crate) fn remote(&self) -> RemoteRow {
        self.world.db(self.bob).get::<Remotes>(&self.rid()).unwrap().clone()
    }

    pub(crate) fn session_row(&self) -> SessionRow {
        self.world.db(self.bob).get::<Sessions>(&self.dee.peer).unwrap().clone()
    }

    pub(crate) fn on_file(&self) -> Option<Incarnation> {
        self.world.db(self.bob).get::<PeerIncarnations>(&self.dee.peer)?.incarnation.clone()
    }

    /// What Bob's c-list calls `name`, in Dee's remote.
    pub(crate) fn kref(&self, name: &str) -> Option<KRef> {
        let name: RRef = name.parse().unwrap();
        self.world.db(self.bob).get::<ClistByEref>(&(self.endpoint(), ERef::Remote(name))).copied()
    }
}
