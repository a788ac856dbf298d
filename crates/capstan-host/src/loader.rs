//! From configurations to what can be launched.

use capstan_kernel::host_op::LaunchConfig;
use std::sync::Arc;

/// Makes of a configuration (05 §3) what can be launched: reads the code.
#[derive(Clone)]
pub struct Loader(Arc<Load>);

type Load = dyn Fn(&serde_json::Value) -> Result<LaunchConfig, String> + Send + Sync;

impl Loader {
    /// A loader; `load` may block, and says in its text why it does not accept a configuration.
    pub fn new(
        load: impl Fn(&serde_json::Value) -> Result<LaunchConfig, String> + Send + Sync + 'static,
    ) -> Self {
        Loader(Arc::new(load))
    }

    pub(crate) fn load(&self, config: &serde_json::Value) -> Result<LaunchConfig, String> {
        (self.0)(config)
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loader")
    }
}
