//! TLS, with a certificate authority of one's own: a binary of its own, as it needs one of the features that are off.
//!
//! `cargo test --test tls --features tls-rustls-ring`

#[path = "it/support/server.rs"]
mod server;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use assemblage::fred::prelude::*;
use assemblage::fred::rustls::pki_types::CertificateDer;
use assemblage::fred::rustls::pki_types::pem::PemObject;
use assemblage::fred::rustls::{ClientConfig, RootCertStore};
use assemblage::fred::types::config::{TlsConfig, TlsConnector};
use assemblage::{CloseReason, Cluster, ErrorKind, Event};
use futures::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use server::RedisServer;
use tempfile::TempDir;

const PASSWORD: &str = "hunter2";
/// What a server that is not asked in its own language may take to say so: nothing, for ever.
const SHORT: Duration = Duration::from_millis(500);

/// A server that takes nothing but TLS, and the certificates that it was made with.
struct Secure {
    server: RedisServer,
    /// `ca.crt`, and `other.crt` of an authority that has signed nothing.
    files: TempDir,
}

impl Secure {
    fn start() -> Self {
        let files = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: String| std::fs::write(files.path().join(name), text).expect("written");
        let (ca, other) = (authority("ours"), authority("another"));
        write("ca.crt", ca.pem());
        write("other.crt", other.pem());
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a plain name");
        write("server.crt", params.signed_by(&key, &ca).expect("it is signed").pem());
        write("server.key", key.serialize_pem());
        let path = |name| files.path().join(name).display().to_string();
        let server = RedisServer::with(&[
            "--port",
            "0",
            "--tls-port",
            "{port}",
            "--tls-cert-file",
            &path("server.crt"),
            "--tls-key-file",
            &path("server.key"),
            "--tls-ca-cert-file",
            &path("ca.crt"),
            "--tls-auth-clients",
            "no",
        ]);
        let rights = ["reset", "on", &format!(">{PASSWORD}"), "+@all", "~*", "&*"];
        server.command(&[&["ACL", "SETUSER", "app"][..], &rights].concat());
        Self { server, files }
    }

    fn url(&self) -> String {
        format!("rediss://app:{PASSWORD}@127.0.0.1:{}", self.server.port())
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.files.path().join(name)
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("it signs itself")
}

/// Trusts the authority in this file, and nobody else.
fn trust(ca: &Path) -> TlsConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("it can be trusted");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(config).into()
}

/// The life of a job: commands, subscriptions and pushes all go through TLS.
async fn live(cluster: &Cluster) {
    let (master, mut worker) = (cluster.master().await.unwrap(), cluster.worker().await.unwrap());
    let added = master.add(&"payload").await.unwrap();
    let Some(Event::Add(job)) = worker.next().await else { panic!("its job") };
    assert_eq!((job.id(), job.payload::<&str>().unwrap()), (&added, "payload"));
    drop(job);
    let done = worker.terminate();
    let mut closed = None;
    while let Some(event) = worker.next().await {
        if let Event::Close(reason) = event {
            closed = Some(reason);
        }
    }
    assert_eq!(closed, Some(CloseReason::Terminated));
    done.await;
}

fn builder() -> assemblage::ClusterBuilder {
    Cluster::builder("test")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted_where_it_is_given() {
    let secure = Secure::start();
    let tls = trust(&secure.file("ca.crt"));
    let cluster = builder().tls(tls).connect_url(secure.url()).await.unwrap();
    live(&cluster).await;
    assert!(
        secure.server.command(&["CLIENT", "LIST"]).text().contains("user=app"),
        "they are its connections"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_client_brings_its_own_configuration_also_to_the_subscriptions() {
    let secure = Secure::start();
    let mut config = Config::from_url(&secure.url().replace("rediss:", "redis:")).unwrap();
    config.tls = Some(trust(&secure.file("ca.crt")));
    let client = Builder::from_config(config).build().unwrap();
    client.init().await.unwrap();
    live(&builder().client(client.clone()).await.unwrap()).await;
    let error = builder().tls(trust(&secure.file("ca.crt"))).client(client.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");
    client.quit().await.unwrap();
}

/// Not a test by itself: what the process below runs.
#[tokio::test(flavor = "multi_thread")]
async fn by_the_environment() {
    let Ok(url) = std::env::var("ASSEMBLAGE_TEST_TLS_URL") else { return };
    match builder().connect_url(url).await {
        Ok(cluster) => live(&cluster).await,
        Err(error) => panic!("{:?} {error}", error.kind()),
    }
}

#[test]
fn ssl_cert_file_names_an_authority_for_a_url_alone() {
    let secure = Secure::start();
    let run = |ca: &str| {
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["by_the_environment", "--exact", "--nocapture"])
            .env("ASSEMBLAGE_TEST_TLS_URL", secure.url())
            .env("SSL_CERT_FILE", secure.file(ca))
            .output()
            .expect("a child process");
        (child.status.success(), String::from_utf8_lossy(&child.stderr).into_owned())
    };
    let (well, said) = run("ca.crt");
    assert!(well, "{said}");
    let (well, said) = run("other.crt");
    assert!(!well && said.contains("Connection") && said.contains("SSL_CERT_FILE"), "{said}");
    let (well, said) = run("nothing.crt");
    assert!(!well && said.contains("InvalidSetting") && said.contains("SSL_CERT_FILE"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

/// What went wrong. No text has the password.
async fn refused(cluster: assemblage::ClusterBuilder, url: &str) -> (ErrorKind, String) {
    let error = cluster.connect_url(url).await.expect_err("it is refused");
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let all = format!("{error} {error:?} {source}");
    assert!(!all.contains(PASSWORD) && !all.contains("swordfish"), "{all}");
    (error.kind(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_says_what_to_do() {
    let secure = Secure::start();
    let [good, wrong] = ["ca.crt", "other.crt"].map(|file| trust(&secure.file(file)));
    let good = || builder().tls(good.clone());
    let (port, plain) = (secure.server.port(), RedisServer::start());
    let clear = format!("redis://127.0.0.1:{port}");
    let another_name = secure.url().replace("127.0.0.1", "localhost");
    let guessed = secure.url().replace(PASSWORD, "swordfish");
    let not_tls = plain.url().replace("redis:", "rediss:");
    for (builder, url, kind, says) in [
        (builder().tls(wrong), secure.url(), ErrorKind::Connection, "UnknownIssuer"),
        (good(), another_name, ErrorKind::Connection, "name the host"),
        (good(), guessed, ErrorKind::Denied, "password"),
        (good(), clear.clone(), ErrorKind::InvalidSetting, "use rediss://"),
        (builder(), clear, ErrorKind::Connection, "use rediss://"),
        (good().command_timeout(SHORT), not_tls, ErrorKind::Connection, "use redis://"),
    ] {
        let (found, text) = refused(builder, &url).await;
        assert!(found == kind && text.contains(says), "{says}: {text}");
    }
}
