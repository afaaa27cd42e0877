//! A first walk through the main road.

use assemblage::{Added, CloseReason, DeleteReason, Deleted, Event};
use futures::StreamExt;

use crate::support::{RedisServer, cluster, next};

#[tokio::test]
async fn a_job_is_added_held_deleted_and_gone() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();

    let id = master.add(&("user@example.com", 993u16)).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!(job.id(), &id);
    assert_eq!(job.payload::<(&str, u16)>().unwrap(), ("user@example.com", 993));

    let waiting = tokio::spawn({
        let (master, id) = (master.clone(), id.clone());
        async move { master.delete_and_wait(&id).await.unwrap() }
    });
    let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
    assert_eq!(deletion.reason(), DeleteReason::Removed);
    assert!(!waiting.is_finished());
    drop((job, deletion));
    assert!(matches!(waiting.await.unwrap(), Deleted::Releasing { .. }));
    assert!(master.job(&id).await.unwrap().is_none());
    assert_eq!(master.delete(&id).await.unwrap(), Deleted::Unknown);

    let done = worker.terminate();
    assert!(matches!(next(&mut worker).await, Event::Close(CloseReason::Terminated)));
    assert!(worker.next().await.is_none());
    done.await;
    assert_eq!(master.stats().await.unwrap().workers, 0);
    let _ = Added::New(id);
}
