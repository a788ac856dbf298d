//! Setting up: kernels, vats, URLs.

use super::{KernelId, World};
use crate::node::Node;
use crate::scripted::Program;
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal, VatConfig};
use capstan_kernel::kernel::{Generation, KernelConfig};
use capstan_model::id::{EndpointId, ObjectId, VatId};
use capstan_model::peer::{Millis, PeerId};
use capstan_model::vat::{CodeFormat, VatCode, VatLimits};
use capstan_store::schema::{Objects, Owner};
use capstan_wire::link::LinkOptions;
use capstan_wire::seam::{LinkEvent, LinkOrder};
use capstan_wire::url::{OcapUrl, oid_from_secret};

/// Shorter than the daemon's, so that an unanswered frame is sent again within what counts as quiet.
const ACK_TIMEOUT: Millis = Millis(2_000);

/// Long enough for a few turns of a kernel and its vats and for a delayed acknowledgement.
const BRIEFLY: u64 = 200;

impl World {
    /// Adds a kernel of the session generation and starts it.
    pub fn kernel(&mut self, name: &str) -> KernelId {
        self.kernel_of(name, Generation::Session)
    }

    /// Adds a kernel of that generation and starts it.
    pub fn kernel_of(&mut self, name: &str, generation: Generation) -> KernelId {
        self.kernel_with(name, |config, _| config.generation = generation)
    }

    /// Adds a kernel, configured by `configure`, and starts it.
    pub fn kernel_with(
        &mut self,
        name: &str,
        configure: impl FnOnce(&mut KernelConfig, &mut LinkOptions),
    ) -> KernelId {
        let mut config = KernelConfig::new(PeerId::new(format!("peer-{name}")));
        config.ack_timeout = ACK_TIMEOUT;
        config.audit_every_transaction = true;
        let mut options = LinkOptions::default();
        configure(&mut config, &mut options);
        let kernel = KernelId(self.nodes.len());
        self.nodes.push(Node::new(name, config, options));
        self.start(kernel);
        self.run_until_quiet();
        kernel
    }

    /// Adds a kernel whose links the test itself plays: see [`crate::stranger`].
    pub fn bare_kernel(&mut self, name: &str, generation: Generation) -> KernelId {
        let kernel = self.kernel_of(name, generation);
        self.node_mut(kernel).bare = true;
        kernel
    }

    /// Changes what the kernel is told when it next starts.
    pub fn reconfigure(&mut self, kernel: KernelId, change: impl FnOnce(&mut KernelConfig)) {
        change(&mut self.node_mut(kernel).config);
    }

    /// The public name of a kernel.
    pub fn peer(&self, kernel: KernelId) -> PeerId {
        self.node(kernel).config.peer.clone()
    }

    /// Launches a vat, alone in its subcluster; returns its root.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn vat(&mut self, kernel: KernelId, program: Program) -> ObjectId {
        let name = program.name;
        let code = VatCode { format: CodeFormat::Module, name: name.into(), text: name.into() };
        let vat = VatConfig {
            name: name.into(),
            code,
            code_hash: format!("hash-of-{name}").into(),
            parameters: None,
            limits: VatLimits::default(),
            endowments: Default::default(),
        };
        let launch = LaunchConfig {
            bootstrap: name.into(),
            bootstrap_optional: true,
            vats: vec![vat],
            services: Vec::new(),
            text: "{}".into(),
        };
        match self.ask(kernel, HostOp::Launch(launch)) {
            Ok(Answer::Launched { root, .. }) => {
                self.run_until_quiet();
                root
            }
            other => panic!("not launched: {other:?}\n{}", self.trace(60)),
        }
    }

    /// The vat that an object lives in.
    ///
    /// # Panics
    /// If it lives in none.
    #[track_caller]
    pub fn vat_of(&self, kernel: KernelId, object: ObjectId) -> VatId {
        match self.db(kernel).get::<Objects>(&object).and_then(|row| row.owner) {
            Some(Owner::Endpoint(EndpointId::Vat(vat))) => vat,
            owner => panic!("{object} belongs to {owner:?}"),
        }
    }

    /// Keeps the vat's deliveries unanswered.
    pub fn pause(&mut self, kernel: KernelId, root: ObjectId) {
        let vat = self.vat_of(kernel, root);
        if let Some(process) = &mut self.node_mut(kernel).process {
            process.vats.pause(vat);
        }
    }

    /// Answers what waited.
    pub fn resume(&mut self, kernel: KernelId, root: ObjectId) {
        let vat = self.vat_of(kernel, root);
        let answers = self.node_mut(kernel).process.as_mut().map(|process| process.vats.resume(vat));
        self.answer_later(kernel, answers.unwrap_or_default());
    }

    /// Lets the vat's worker die.
    pub fn kill_worker(&mut self, kernel: KernelId, root: ObjectId) {
        let vat = self.vat_of(kernel, root);
        let died = self.node_mut(kernel).process.as_mut().and_then(|p| p.vats.kill(vat, "worker killed"));
        self.answer_later(kernel, died.into_iter().collect());
    }

    /// Issues a URL.
    ///
    /// # Panics
    /// If that is refused.
    #[track_caller]
    pub fn issue(&mut self, kernel: KernelId, object: ObjectId) -> String {
        let secret = self.chance.bytes();
        match self.ask(kernel, HostOp::IssueUrl { object, secret }) {
            Ok(Answer::Url { .. }) => {}
            other => panic!("not issued: {other:?}\n{}", self.trace(60)),
        }
        let host = self.peer(kernel);
        let hints = vec![format!("sim/{host}").into()];
        OcapUrl { oid: oid_from_secret(&secret), host, hints }.to_string()
    }

    /// Redeems a URL and runs until quiet.
    pub fn try_redeem(&mut self, kernel: KernelId, url: &str) -> Result<ObjectId, Refusal> {
        let op = self.redemption(url.to_owned());
        match self.ask(kernel, op) {
            Ok(Answer::Redeemed { object }) => {
                self.run_until_quiet();
                Ok(object)
            }
            Ok(other) => panic!("not the answer to a redemption: {other:?}"),
            Err(refusal) => Err(refusal),
        }
    }

    /// Redeems a URL and runs until quiet.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn redeem(&mut self, kernel: KernelId, url: &str) -> ObjectId {
        match self.try_redeem(kernel, url) {
            Ok(object) => object,
            Err(refusal) => panic!("not redeemed: {refusal}\n{}", self.trace(60)),
        }
    }

    /// Starts a redemption and runs nothing.
    pub fn start_redeem(&mut self, kernel: KernelId, url: &str) -> capstan_kernel::input::RequestId {
        let op = self.redemption(url.to_owned());
        self.request(kernel, op)
    }

    /// Tells a bare kernel what happened on its links, and lets it act on that. Less time passes than a classic
    /// kernel waits before it sends again.
    pub fn tell(&mut self, kernel: KernelId, event: LinkEvent) {
        let fresh = self.node_mut(kernel).fresh();
        self.input(kernel, capstan_kernel::input::Input::Link { event, fresh });
        self.advance(BRIEFLY);
    }

    /// Takes what a bare kernel has ordered of its links.
    pub fn orders(&mut self, kernel: KernelId) -> Vec<LinkOrder> {
        std::mem::take(&mut self.node_mut(kernel).orders)
    }
}
