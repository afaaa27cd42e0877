//! What depends on whether a backend of TLS is compiled in, and which.

pub(crate) use backend::{TLS, Tls, choose_cryptography, is_of_tls, with_tls};

#[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring", feature = "tls-native"))]
mod backend {
    use fred::error::{Error, ErrorKind};
    use fred::types::config::{Config, TlsConfig};

    /// How TLS is spoken: fred's own type.
    pub(crate) type Tls = TlsConfig;

    pub(crate) const TLS: bool = true;

    pub(crate) fn with_tls(mut config: Config, tls: Tls) -> Config {
        config.tls = Some(tls);
        config
    }

    /// Where other crates of the application bring in a second one, rustls panics unless somebody has chosen. Whoever
    /// did so first is left alone.
    pub(crate) fn choose_cryptography() {
        #[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
        if fred::rustls::crypto::CryptoProvider::get_default().is_none() {
            #[cfg(feature = "tls-rustls-ring")]
            let provider = fred::rustls::crypto::ring::default_provider();
            #[cfg(not(feature = "tls-rustls-ring"))]
            let provider = fred::rustls::crypto::aws_lc_rs::default_provider();
            let _ = provider.install_default(); // another thread may have been faster
        }
    }

    pub(crate) fn is_of_tls(error: &Error) -> bool {
        *error.kind() == ErrorKind::Tls
    }
}

#[cfg(not(any(feature = "tls-rustls", feature = "tls-rustls-ring", feature = "tls-native")))]
mod backend {
    use fred::error::Error;
    use fred::types::config::Config;

    /// There is none.
    pub(crate) type Tls = std::convert::Infallible;

    pub(crate) const TLS: bool = false;

    pub(crate) fn with_tls(_: Config, tls: Tls) -> Config {
        match tls {}
    }

    pub(crate) fn choose_cryptography() {}

    pub(crate) fn is_of_tls(_: &Error) -> bool {
        false
    }
}
