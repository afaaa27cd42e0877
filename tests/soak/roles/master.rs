//! A process with a master: does what it is told, any number of things at a time.

use std::future::Future;

use assemblage::{AddOptions, Added, Cluster, Deleted, Error, JobId, JobState, Master, Updated, WorkerId};
use futures::StreamExt;

use super::{Commands, failed, say};
use crate::checker::What;

pub(crate) async fn preside(cluster: Cluster, mut commands: Commands) {
    let mut master = start(&cluster).await;
    while let Some(line) = commands.recv().await {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if words[1] == "renew" {
            drop(master);
            master = start(&cluster).await;
        } else {
            tokio::spawn(carry_out(master.clone(), words));
        }
    }
}

async fn start(cluster: &Cluster) -> Master {
    loop {
        match cluster.master().await {
            Ok(master) => return master,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// `<operation> <what> <job,job,...> ...`
async fn carry_out(master: Master, words: Vec<String>) {
    let (op, what) = (words[0].clone(), words[1].as_str());
    let names: Vec<String> = words[2].split(',').map(str::to_owned).collect();
    let ids: Vec<JobId> = names.iter().filter_map(|name| JobId::new(name).ok()).collect();
    let worker = || names[0].parse().ok().map(|number| (number, master.clone()));
    match what {
        "add" if ids.len() == 1 => {
            let options = AddOptions::default().id(ids[0].clone());
            let call = async { Ok(added(&[master.add_with(&op, options).await?])) };
            ask(&op, "add", names, Some(op.clone()), call).await;
        }
        "add" => {
            let jobs: Vec<_> = ids.into_iter().map(|id| (id, op.clone())).collect();
            let call = async { Ok(added(&master.add_many_with(&jobs).await?)) };
            ask(&op, "add", names, Some(op.clone()), call).await;
        }
        "fresh" => {
            let count = names[0].parse().expect("a count");
            let call = async {
                let ids = if count == 1 {
                    vec![master.add(&op).await?]
                } else {
                    master.add_many(&vec![op.clone(); count]).await?
                };
                Ok(ids.into_iter().map(|id| (id.to_string(), "new".to_owned())).collect())
            };
            ask(&op, "add", Vec::new(), Some(op.clone()), call).await;
        }
        "update" => {
            let call = async {
                let code = match master.update(&ids[0], &op).await? {
                    Updated::Unknown => "unknown",
                    Updated::Pushed => "pushed",
                    _ => "stored",
                };
                Ok(vec![(ids[0].to_string(), code.to_owned())])
            };
            ask(&op, "update", names, Some(op.clone()), call).await;
        }
        "delete" if ids.len() == 1 => {
            let call = async { Ok(deleted(&ids, &[master.delete(&ids[0]).await?])) };
            ask(&op, "delete", names, None, call).await;
        }
        "delete" => {
            let call = async { Ok(deleted(&ids, &master.delete_many(&ids).await?)) };
            ask(&op, "delete", names, None, call).await;
        }
        "wait" => {
            let call = async { Ok(deleted(&ids, &[master.delete_and_wait(&ids[0]).await?])) };
            ask(&op, "wait", names, None, call).await;
        }
        "drain" | "resume" | "evict" => {
            let Some((number, master)) = worker() else { return };
            order(&master, what, number).await;
        }
        "list" => list(&master).await,
        other => panic!("no such call: {other}"),
    }
}

/// Writes down what is asked for before it is, and the answer after it has come.
async fn ask(
    op: &str,
    call: &str,
    jobs: Vec<String>,
    payload: Option<String>,
    answer: impl Future<Output = Result<Vec<(String, String)>, Error>>,
) {
    say(What::Ask { op: op.to_owned(), call: call.to_owned(), jobs, payload });
    match answer.await {
        Ok(answers) => {
            let (jobs, codes) = answers.into_iter().unzip();
            say(What::Done { op: op.to_owned(), jobs, codes });
        }
        Err(error) => say(failed(op.to_owned(), error.kind())),
    }
}

fn added(answers: &[Added]) -> Vec<(String, String)> {
    let code = |added: &Added| if added.is_new() { "new" } else { "existing" };
    answers.iter().map(|added| (added.id().to_string(), code(added).to_owned())).collect()
}

fn deleted(ids: &[JobId], answers: &[Deleted]) -> Vec<(String, String)> {
    let code = |deleted: &Deleted| match deleted {
        Deleted::Unknown => "unknown",
        Deleted::Gone => "gone",
        _ => "releasing",
    };
    ids.iter().zip(answers).map(|(id, answer)| (id.to_string(), code(answer).to_owned())).collect()
}

/// The number of a worker has no constructor, so it is looked up.
async fn order(master: &Master, what: &str, number: u64) {
    let Ok(workers) = master.workers().await else { return };
    let Some(worker) = workers.iter().map(|worker| worker.id).find(|id: &WorkerId| id.get() == number) else {
        return;
    };
    let _ = match what {
        "drain" => master.drain(worker).await,
        "resume" => master.resume(worker).await,
        _ => master.evict(worker).await,
    };
}

async fn list(master: &Master) {
    let mut jobs = master.jobs();
    let mut rows = Vec::new();
    while let Some(row) = jobs.next().await {
        let Ok(row) = row else { return };
        let state = match row.state {
            JobState::Pending => "pending".to_owned(),
            JobState::Assigned { worker, epoch } => format!("assigned:{worker}:{epoch}"),
            JobState::Releasing { worker, epoch } => format!("releasing:{worker}:{epoch}"),
            JobState::Moving { worker, epoch } => format!("moving:{worker}:{epoch}"),
            JobState::Quarantined => "quarantined".to_owned(),
            other => format!("{other:?}"),
        };
        rows.push((row.id.to_string(), state));
    }
    let Ok(stats) = master.stats().await else { return };
    for (job, state) in rows {
        say(What::Has { job, state });
    }
    say(What::Cluster { jobs: stats.jobs, pending: stats.pending, quarantined: stats.quarantined });
}
