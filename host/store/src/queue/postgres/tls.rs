//! TLS to a server, as `sslmode` and its companions ask for it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The largest file of certificates or keys.
const LARGEST_FILE: u64 = 4 << 20;

/// What is looked at in a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// Nothing: the bytes are hidden from whoever only listens.
    Nothing,
    /// Who signed it.
    Chain,
    /// Who signed it, and that it is for the server's name.
    ChainAndName,
}

/// Whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// Those that this machine trusts.
    System,
    /// Those in a file.
    File(PathBuf),
}

/// How a server is to be spoken to.
#[derive(Clone, Debug)]
pub(super) struct TlsSettings {
    pub(super) checked: Checked,
    pub(super) roots: Option<Roots>,
    /// Our own certificate, and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl TlsSettings {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(self, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate, "sslcert")?, private_key(key)?)
                .map_err(|error| {
                    let (certificate, key) = (certificate.display(), key.display());
                    format!("sslcert={certificate} and sslkey={key} do not fit: {error}")
                })?,
        };
        // What libpq says, too; servers refuse others where TLS comes first (sslnegotiation=direct).
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }
}

fn read(file: &Path, parameter: &str) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("read {parameter}={}: {error}", file.display());
    let mut bytes = Vec::new();
    File::open(file)
        .map_err(told)?
        .take(LARGEST_FILE)
        .read_to_end(&mut bytes)
        .map_err(told)?;
    Ok(bytes)
}

/// The certificates in a file, at least one.
fn certificates(file: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let bytes = read(file, parameter)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{parameter}={shown} is no file of certificates: {error}"))?;
    if found.is_empty() {
        return Err(format!(
            "{parameter}={shown} holds no certificate in PEM form"
        ));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = file.display();
    let mode = std::fs::metadata(file)
        .map_err(|error| format!("read sslkey={shown}: {error}"))?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        return Err(format!(
            "everybody may use sslkey={shown}: chmod 600 {shown}"
        ));
    }
    PrivateKeyDer::from_pem_slice(&read(file, "sslkey")?)
        .map_err(|error| format!("sslkey={shown} holds no key that can be used: {error}"))
}

/// Looks at servers' certificates, as far as it was asked to.
#[derive(Debug)]
struct Verifier {
    checked: Checked,
    provider: Arc<CryptoProvider>,
    /// `None` where nothing is looked at.
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// The roots themselves: a server may show one of them as its own.
    roots: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let mut verifier = Self {
            checked: settings.checked,
            provider: provider.clone(),
            inner: None,
            roots: Vec::new(),
        };
        let (Some(roots), true) = (&settings.roots, settings.checked != Checked::Nothing) else {
            return Ok(verifier);
        };
        let mut store = RootCertStore::empty();
        let place = match roots {
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
                "this machine".to_owned()
            }
            Roots::File(file) => {
                verifier.roots = certificates(file, "sslrootcert")?;
                store.add_parsable_certificates(verifier.roots.iter().cloned());
                format!("sslrootcert={}", file.display())
            }
        };
        if store.is_empty() {
            return Err(format!(
                "no certificate of {place} can be used to check others"
            ));
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .build()
            .map_err(|error| format!("use the certificates of {place}: {error}"))?;
        verifier.inner = Some(inner);
        Ok(verifier)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        // A certificate that signed itself, as many servers have one, is its own authority. The
        // library takes no authority for a server; libpq does.
        if self.roots.iter().any(|root| root == end_entity) {
            if self.checked == Checked::ChainAndName {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match inner.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is looked at last: all else was as it should be.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.checked == Checked::Chain => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.inner {
            Some(inner) => inner.verify_tls12_signature(message, certificate, signed),
            // Nobody asked who it is: proof that it has the key proves nothing more, and would
            // keep out servers with certificates of an old form.
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.inner {
            Some(inner) => inner.verify_tls13_signature(message, certificate, signed),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What a fault of TLS means, where it is one that an operator can mend.
pub(super) fn meaning(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let fault = find(error)?;
    Some(match fault {
        // The second: by one who calls itself as one of them.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "the server's certificate is signed by none of sslrootcert".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name than that in the address".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the server's certificate has expired".to_owned(),
        rustls::Error::InvalidCertificate(other) => {
            format!("the server's certificate cannot be trusted: {other}")
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the server ended the handshake ({alert:?}): it may want sslcert and sslkey")
        }
        _ => return None,
    })
}

fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    // As deep as any chain of causes is.
    for _ in 0..8 {
        let error = next?;
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An error of input and output has what it was made of inside, not as its source.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}
