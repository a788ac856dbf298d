//! What the two kernels go through, and what must hold.

use super::super::super::printer::Printer;
use super::actor::{Actor, short};
use super::story::Story;
use crate::error::{CliError, Code};
use crate::rpc::client::Client;
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Questions asked at once, in the midst of which the peer is killed.
const QUESTIONS_BEFORE: u64 = 60;
/// Questions asked of a peer that has stopped reading, so that they are under way for certain when it is killed.
const QUESTIONS_UNDER_WAY: u64 = 10;
/// Questions asked while the peer is down.
const QUESTIONS_AFTER: u64 = 10;
/// Answers that have come when it is stopped.
const ANSWERS_BEFORE: usize = 5;
/// The first question of that series.
const FIRST_QUESTION: u64 = 100;
/// How long questions to a stopped peer are given to leave.
const UNDER_WAY: Duration = Duration::from_millis(50);
/// How often something that is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

type Held = Result<(), CliError>;

fn check(held: bool, otherwise: impl FnOnce() -> String) -> Held {
    if held { Ok(()) } else { Err(CliError::internal(otherwise())) }
}

/// Act one: two kernels, a vat on each, questions in both directions.
pub(super) async fn meet(story: &mut Story, out: &mut Printer, ann: &mut Actor, bob: &mut Actor) -> Held {
    for actor in [&mut *ann, &mut *bob] {
        actor.start().await?;
        let saw = format!("peer {}, incarnation {}", short(&actor.peer), short(&actor.life));
        story.tell(out, &format!("{} is started", actor.name), saw)?;
    }
    introduce(ann, bob).await?;
    let saw = format!("{} on {}, {} on {}", ann.root, ann.name, bob.root, bob.name);
    story.tell(out, "a vat is launched on each, and each learns of the other by an ocap: URL", saw)?;
    let (hers, his) = (ann.tell("ask", json!([1])).await?, bob.tell("ask", json!([10])).await?);
    check(hers == json!(2) && his == json!(11), || format!("answers {hers} and {his} instead of 2 and 11"))?;
    story.tell(out, "they talk", format!("ann asks 1, bob says {hers}; bob asks 10, ann says {his}"))
}

/// Launches what is not there yet and exchanges references by URL.
async fn introduce(ann: &mut Actor, bob: &mut Actor) -> Held {
    for actor in [&mut *ann, &mut *bob] {
        if actor.root.is_empty() {
            actor.launch_chatter().await?;
        }
    }
    for turn in [true, false] {
        let (teller, hearer) = if turn { (&mut *ann, &mut *bob) } else { (&mut *bob, &mut *ann) };
        let url = teller.issue().await?;
        hearer.tell("meet", json!([{"@url": url}])).await?;
    }
    Ok(())
}

/// Asks on a connection of its own, so that many questions are under way at once.
async fn ask(mut line: Client, root: String, question: u64) -> Result<(), CliError> {
    let call = line.call("queueMessage", json!([root, "ask", [question]])).await?;
    let expected = format!("#{}", question + 1);
    let body = call.get("body").and_then(Json::as_str).unwrap_or_default();
    check(body == expected, || format!("question {question} was answered by {body}"))
}

/// Act two: bob is killed in mid-conversation and started on its store. Each question is answered, exactly once.
pub(super) async fn kill_in_mid_conversation(
    story: &mut Story,
    out: &mut Printer,
    ann: &mut Actor,
    bob: &mut Actor,
) -> Held {
    let life = bob.life.clone();
    let (noted_by_ann, noted_by_bob) = (ann.notes().await?.len(), bob.notes().await?.len());
    let mut asked = JoinSet::new();
    let stopped = FIRST_QUESTION + QUESTIONS_BEFORE;
    let killed = stopped + QUESTIONS_UNDER_WAY;
    let last = killed + QUESTIONS_AFTER;
    let mut lines = Vec::new();
    for question in FIRST_QUESTION..killed {
        lines.push((question, ann.line().await?));
    }
    let later = lines.split_off(usize::try_from(QUESTIONS_BEFORE).unwrap_or(lines.len()));
    for (question, line) in lines {
        asked.spawn(ask(line, ann.root.clone(), question));
    }
    for _ in 0..ANSWERS_BEFORE {
        next_answer(&mut asked).await?;
    }
    bob.freeze()?;
    for (question, line) in later {
        asked.spawn(ask(line, ann.root.clone(), question));
    }
    tokio::time::sleep(UNDER_WAY).await;
    bob.kill().await?;
    while let Some(done) = asked.try_join_next() {
        done.map_err(|error| CliError::internal(error.to_string()))??;
    }
    let in_flight = u64::try_from(asked.len()).unwrap_or(0);
    check(in_flight >= QUESTIONS_UNDER_WAY, || format!("only {in_flight} calls were in flight"))?;
    for question in killed..last {
        asked.spawn(ask(ann.line().await?, ann.root.clone(), question));
    }
    let answered = killed - FIRST_QUESTION - in_flight;
    let saw = format!(
        "{answered} questions were answered, {in_flight} are in flight, {QUESTIONS_AFTER} more are asked now"
    );
    story.tell(out, "bob is killed (SIGKILL) in mid-conversation", saw)?;

    bob.start().await?;
    check(bob.life == life, || "bob lost its state by the kill".to_owned())?;
    while !asked.is_empty() {
        next_answer(&mut asked).await?;
    }
    let saw =
        format!("incarnation {} as before; all {} answers came", short(&bob.life), last - FIRST_QUESTION);
    story.tell(out, "bob is started on its store", saw)?;

    let (hers, his) = (ann.notes().await?, bob.notes().await?);
    let answers = numbers(&hers, noted_by_ann, "answer ");
    let questions = numbers(&his, noted_by_bob, "question ");
    let mut sorted = questions.clone();
    sorted.sort_unstable();
    check(sorted == (FIRST_QUESTION..last).collect::<Vec<_>>(), || format!("bob heard {questions:?}"))?;
    let in_order = questions.iter().map(|question| question + 1).eq(answers.iter().copied());
    check(in_order, || format!("bob heard {questions:?} and ann heard {answers:?}"))?;
    let saw = format!(
        "{} questions in bob's notes and as many answers in ann's, in the same order",
        questions.len()
    );
    story.tell(out, "each call was made exactly once", saw)
}

async fn next_answer(asked: &mut JoinSet<Result<(), CliError>>) -> Held {
    let waited = tokio::time::timeout(PATIENCE, asked.join_next()).await;
    match waited {
        Ok(Some(Ok(answer))) => answer,
        Ok(Some(Err(error))) => Err(CliError::internal(error.to_string())),
        Ok(None) => Err(CliError::internal("no question is under way")),
        Err(_) => Err(CliError::internal(format!("{} questions were not answered", asked.len()))),
    }
}

/// The numbers of the lines that begin so, after the first `skip` lines.
fn numbers(notes: &[String], skip: usize, beginning: &str) -> Vec<u64> {
    let lines = notes.iter().skip(skip).filter_map(|line| line.strip_prefix(beginning));
    lines.filter_map(|number| number.parse().ok()).collect()
}

/// Act three: bob is killed and loses everything but its keys. Ann notices, and goes on.
pub(super) async fn wipe(story: &mut Story, out: &mut Printer, ann: &mut Actor, bob: &mut Actor) -> Held {
    let url = bob.issue().await?;
    let old = ann.redeem(&url).await?;
    let mut waiting = leave_a_call_waiting(ann, bob).await?;
    let seen = restarts_seen(ann, bob).await?;
    let life = bob.life.clone();
    bob.kill().await?;
    bob.wipe().await?;
    bob.start().await?;
    check(bob.life != life, || "bob's incarnation did not change".to_owned())?;
    let saw = format!("peer {} as before, incarnation {} is new", short(&bob.peer), short(&bob.life));
    story.tell(out, "bob is killed, wiped except for its keys, and started", saw)?;

    let rejected = tokio::time::timeout(PATIENCE, waiting.join_next()).await;
    let rejected = match rejected {
        Ok(Some(Ok(Err(error)))) => error,
        Ok(other) => return Err(CliError::internal(format!("ann's call in flight ended with {other:?}"))),
        Err(_) => return Err(CliError::internal("ann's call in flight was not rejected")),
    };
    check(rejected.code.as_str() == "PEER_RESTARTED", || format!("the call in flight said {rejected}"))?;
    story.tell(out, "ann notices: its call in flight is rejected", rejected.message)?;
    go_on(story, out, ann, bob, &old, seen + 1).await
}

/// Starts a call that bob never answers, and waits until bob has it.
async fn leave_a_call_waiting(
    ann: &Actor,
    bob: &mut Actor,
) -> Result<JoinSet<Result<Json, CliError>>, CliError> {
    let mut line = ann.line().await?;
    let root = ann.root.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { line.call("queueMessage", json!([root, "askForever", []])).await });
    let deadline = Instant::now() + PATIENCE;
    while bob.notes().await?.last().is_none_or(|line| line != "waiting") {
        check(Instant::now() < deadline, || "ann's call did not reach bob".to_owned())?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(waiting)
}

async fn restarts_seen(ann: &mut Actor, bob: &Actor) -> Result<u64, CliError> {
    Ok(ann.remote(&bob.peer).await?.map_or(0, |remote| remote.restarts_seen))
}

/// The old reference is dead, a new one works.
async fn go_on(
    story: &mut Story,
    out: &mut Printer,
    ann: &mut Actor,
    bob: &mut Actor,
    old: &str,
    restarts: u64,
) -> Held {
    let deadline = Instant::now() + PATIENCE;
    let remote = loop {
        match ann.remote(&bob.peer).await? {
            Some(remote) if remote.restarts_seen >= restarts => break remote,
            _ => {
                check(Instant::now() < deadline, || "ann did not notice that bob restarted".to_owned())?;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    };
    let known = remote.peer_incarnation.unwrap_or_default();
    check(known == bob.life, || format!("ann knows incarnation {known} of bob"))?;
    let dead = match ann.send(old, "counts", json!([])).await {
        Err(error) if error.code.as_str() == "OBJECT_DELETED" => error.message,
        Err(error) => return Err(error),
        Ok(value) => {
            return Err(CliError::new(Code::Internal, format!("the old reference answered {value}")));
        }
    };
    story.tell(out, "ann's old reference to bob's vat is dead", format!("{old}: {dead}"))?;

    introduce(ann, bob).await?;
    let answer = ann.tell("ask", json!([restarts])).await?;
    check(answer == json!(restarts + 1), || format!("bob answered {answer}"))?;
    let saw =
        format!("ann asks {restarts}, bob says {answer}; ann has seen {} restarts", remote.restarts_seen);
    story.tell(out, "a new vat on bob, a newly redeemed URL: it works at once", saw)
}

/// Act four: the same while ann is down too, so that ann remembers only what it stored.
pub(super) async fn wipe_while_away(
    story: &mut Story,
    out: &mut Printer,
    ann: &mut Actor,
    bob: &mut Actor,
) -> Held {
    let url = bob.issue().await?;
    let old = ann.redeem(&url).await?;
    let waiting = leave_a_call_waiting(ann, bob).await?;
    let seen = restarts_seen(ann, bob).await?;
    let lives = (ann.life.clone(), bob.life.clone());
    ann.kill().await?;
    bob.kill().await?;
    drop(waiting);
    bob.wipe().await?;
    ann.start().await?;
    bob.start().await?;
    check(ann.life == lives.0 && bob.life != lives.1, || "the wrong one lost its state".to_owned())?;
    let saw = format!("ann is still {}, bob is {} now", short(&ann.life), short(&bob.life));
    story.tell(out, "both are killed, bob is wiped, both are started", saw)?;
    go_on(story, out, ann, bob, &old, seen + 1).await
}
