//! The task beside a master's calls: it hears of dead workers, looks whether one was missed, and reaps.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::waiters::Waiters;
use crate::cluster::Shared;
use crate::error::Result;
use crate::redis::store::Survey;
use crate::shell::link::{Link, LinkEvent};
use crate::shell::retry::{Outage, warn_first};
use crate::shell::takeover::Takeover;

/// Runs until `stop`.
pub(super) async fn run(
    cluster: Arc<Shared>,
    mut link: Link,
    waiters: Arc<Waiters>,
    stop: CancellationToken,
) {
    let mut takeover = Takeover::new(cluster.store.clone(), &cluster.settings, None);
    let mut survey = Some(look(&cluster));
    let mut surveys = Outage::default();
    let mut next_survey = Instant::now() + cluster.settings.heartbeat();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = link.next() => handle_link(event, &mut takeover, &waiters),
            never = takeover.run() => match never {},
            answer = answered(&mut survey) => {
                survey = None;
                handle_survey(answer, &mut surveys, &mut takeover);
            }
            () = sleep_until(next_survey.into()) => {
                next_survey = Instant::now() + cluster.settings.heartbeat();
                survey.get_or_insert_with(|| look(&cluster));
            }
        }
    }
    link.close().await;
}

type Look = BoxFuture<'static, Result<Survey>>;

fn look(cluster: &Arc<Shared>) -> Look {
    let cluster = cluster.clone();
    async move { cluster.store.survey().await }.boxed()
}

async fn answered(survey: &mut Option<Look>) -> Result<Survey> {
    match survey {
        Some(survey) => survey.await,
        None => pending().await,
    }
}

fn handle_survey(answer: Result<Survey>, surveys: &mut Outage, takeover: &mut Takeover) {
    match answer {
        Ok(survey) => {
            if surveys.ends() {
                tracing::info!("the cluster can be looked at again");
            }
            takeover.handle_contact(Instant::now());
            takeover.handle_due(Instant::now(), survey.due);
            takeover.handle_waiting(survey.waiting);
            takeover.handle_turn();
        }
        Err(error) => {
            warn_first!(surveys.begins(&error), %error, "the cluster could not be looked at; tried again");
            takeover.handle_lost();
        }
    }
}

fn handle_link(event: LinkEvent, takeover: &mut Takeover, waiters: &Waiters) {
    let now = Instant::now();
    match event {
        LinkEvent::Control(control) => takeover.handle_control(now, control),
        LinkEvent::LockEnded(worker) => takeover.handle_lock_ended(now, worker),
        LinkEvent::Released(released) => waiters.handle_released(released),
        LinkEvent::Attached(_) | LinkEvent::Lagged => waiters.handle_gap(),
        LinkEvent::Inbox(_) | LinkEvent::Changes(_) => {}
    }
}
