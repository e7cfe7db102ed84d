//! TLS to a server: who is trusted, who is refused, and in which words.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use taskwright_test_postgres::{Server, Tls, Wanted};

use super::super::{OpenQueueError, QueueLimits, open_postgres};

/// An authority, whose certificate lies in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(directory: &Path, name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let names = &mut parameters.distinguished_name;
        names.push(DnType::CommonName, format!("authority of {name}"));
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(parameters, key).unwrap();
        let file = directory.join(name);
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let signed = parameters.signed_by(&key, &self.issuer).unwrap();
        (signed.pem(), key.serialize_pem())
    }
}

fn start(tls: Tls<'_>) -> Option<Server> {
    super::had(Server::start_as(&Wanted {
        careless: true,
        tls: Some(tls),
        ..Wanted::default()
    }))
}

/// Opens the queue with these parameters, and uses it.
async fn open(server: &Server, host: &str, query: &str) -> Result<(), OpenQueueError> {
    let port = server.port();
    let address = format!("postgres://tester:secret@{host}:{port}/postgres?{query}");
    let store = open_postgres(&address, QueueLimits::default()).await?;
    store.counts().await.unwrap();
    Ok(())
}

/// How many of the connections of this product use TLS, of all that go over the network.
fn secured(server: &Server) -> String {
    let count = "SELECT count(*) FILTER (WHERE s.ssl) || '/' || count(*) FROM pg_stat_activity a \
                 JOIN pg_stat_ssl s USING (pid) WHERE a.application_name = 'taskwright'";
    server.sql("postgres", count).unwrap()
}

async fn refused(server: &Server, host: &str, query: &str, because: &str) {
    let refusal = open(server, host, query).await.expect_err(query);
    let told = format!("{refusal} {refusal:?}");
    assert!(told.contains(because), "{query}: {told}");
    assert!(!told.contains("secret"), "{query}: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_checked_as_far_as_the_address_asks() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new(directory.path(), "ours.pem");
    let other = Authority::new(directory.path(), "other.pem");
    let (certificate, key) = ours.sign("localhost");
    let tls = Tls {
        certificate: &certificate,
        key: &key,
        clients: None,
    };
    let Some(server) = start(tls) else { return };
    let (ours, other) = (ours.file.display(), other.file.display());

    // The server takes nobody over the network without TLS.
    refused(&server, "127.0.0.1", "sslmode=disable", "pg_hba.conf").await;
    for query in [
        "",
        "sslmode=prefer",
        "sslmode=require",
        &format!("sslmode=verify-ca&sslrootcert={ours}"),
        &format!("sslmode=require&sslrootcert={ours}"),
    ] {
        open(&server, "127.0.0.1", query).await.expect(query);
    }
    let full = format!("sslmode=verify-full&sslrootcert={ours}");
    let port = server.port();
    let address = format!("postgres://tester@localhost:{port}/postgres?{full}&hostaddr=127.0.0.1");
    let store = open_postgres(&address, QueueLimits::default())
        .await
        .unwrap();
    store.counts().await.unwrap();
    let secured = secured(&server);
    let (by_tls, all) = secured.split_once('/').unwrap();
    assert!(by_tls == all && all != "0", "{secured} connections use TLS");

    let name = "for another name than that in the address";
    refused(&server, "127.0.0.1", &full, name).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let query = format!("sslmode={mode}&sslrootcert={other}");
        refused(
            &server,
            "127.0.0.1",
            &query,
            "signed by none of sslrootcert",
        )
        .await;
    }
    let missing = "sslmode=verify-full&sslrootcert=/nowhere/roots.pem";
    refused(
        &server,
        "127.0.0.1",
        missing,
        "read sslrootcert=/nowhere/roots.pem",
    )
    .await;
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let empty = format!("sslmode=verify-full&sslrootcert={}", empty.display());
    refused(&server, "127.0.0.1", &empty, "holds no certificate").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_signed_itself_is_its_own_authority() {
    let directory = tempfile::tempdir().unwrap();
    let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // As `openssl req -x509` makes them.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap().pem();
    let file = directory.path().join("server.pem");
    std::fs::write(&file, &certificate).unwrap();
    let tls = Tls {
        certificate: &certificate,
        key: &key.serialize_pem(),
        clients: None,
    };
    let Some(server) = start(tls) else { return };
    let query = format!("sslmode=verify-full&sslrootcert={}", file.display());
    open(&server, "127.0.0.1", &query).await.unwrap();
    let name = "for another name than that in the address";
    let other = format!("{query}&hostaddr=127.0.0.1");
    refused(&server, "localhost", &other, name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_a_certificate_gets_ours() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new(directory.path(), "ours.pem");
    let (certificate, key) = ours.sign("127.0.0.1");
    let clients = ours.issuer.pem();
    let tls = Tls {
        certificate: &certificate,
        key: &key,
        clients: Some(&clients),
    };
    let Some(server) = start(tls) else { return };
    let (certificate, key) = ours.sign("tester");
    let (at, key_at) = (
        directory.path().join("c.pem"),
        directory.path().join("k.pem"),
    );
    std::fs::write(&at, certificate).unwrap();
    std::fs::write(&key_at, key).unwrap();
    let roots = ours.file.display();
    let query = format!("sslmode=verify-full&sslrootcert={roots}");
    let with = format!(
        "{query}&sslcert={}&sslkey={}",
        at.display(),
        key_at.display()
    );
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key_at, everybody).unwrap();
    refused(&server, "127.0.0.1", &with, "chmod 600").await;
    std::fs::set_permissions(&key_at, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    open(&server, "127.0.0.1", &with).await.unwrap();
    refused(&server, "127.0.0.1", &query, "certificate").await;
}
