//! `demo`: the main job in one command, on temporary homes and real processes.

mod actor;
mod acts;
mod story;

use super::super::ctx::{Ctx, executable};
use super::super::interrupt::unless_interrupted;
use super::super::printer::Printer;
use super::daemon::Handshake;
use crate::error::CliError;
use actor::Actor;
use clap::Args;
use std::process::ExitCode;
use story::Story;

/// `demo`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan demo
  capstan --json demo --handshake classic")]
pub struct DemoArgs {
    /// Handshake that both kernels speak
    #[arg(long, value_enum, default_value_t = Handshake::Session)]
    handshake: Handshake,
}

pub(super) async fn run(ctx: &Ctx, printer: &mut Printer, args: DemoArgs) -> Result<ExitCode, CliError> {
    let mut story = Story::new(ctx.json);
    let played = unless_interrupted(play(&mut story, printer, args.handshake)).await;
    played.map_err(|error| story.failure(error))?;
    printer.result(&story)
}

/// Plays all acts. However it ends, the daemons end with their actors.
async fn play(story: &mut Story, printer: &mut Printer, handshake: Handshake) -> Result<(), CliError> {
    let scratch = tempfile::Builder::new().prefix("capstan-demo-").tempdir();
    let scratch = scratch.map_err(|error| CliError::io("a temporary directory", error))?;
    let program = executable()?;
    let actor = |name| Actor::new(name, scratch.path(), program.clone(), handshake.into());
    let (mut ann, mut bob) = (actor("ann")?, actor("bob")?);
    acts::meet(story, printer, &mut ann, &mut bob).await?;
    acts::kill_in_mid_conversation(story, printer, &mut ann, &mut bob).await?;
    acts::wipe(story, printer, &mut ann, &mut bob).await?;
    acts::wipe_while_away(story, printer, &mut ann, &mut bob).await?;
    story.begin();
    for actor in [&mut ann, &mut bob] {
        actor.stop().await?;
    }
    story.tell(printer, "both stopped cleanly, their homes are removed", "exit of both processes".to_owned())
}
