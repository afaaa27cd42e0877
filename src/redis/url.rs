//! Reading a URL. fred takes every scheme, passes over what it does not know, speaks in clear to a `rediss://` URL where TLS
//! is not compiled in, and quotes the URL in its errors, and so the password: all of it is looked at here, before.
//!
//! No text repeats a part of the URL: what is at the wrong place is often a part of a password.

use fred::types::config::Config;

use super::tls::{TLS, Tls, choose_cryptography, is_of_tls, with_tls};
use crate::error::{Error, ErrorKind, Result};

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Single,
    Cluster,
    Sentinel,
    Unix,
}

/// A scheme, what it is with TLS, and what it means.
const SCHEMES: &[(&str, &str, Form)] = &[
    ("redis", "rediss", Form::Single),
    ("valkey", "valkeys", Form::Single),
    ("redis-cluster", "rediss-cluster", Form::Cluster),
    ("valkey-cluster", "valkeys-cluster", Form::Cluster),
    ("redis-sentinel", "rediss-sentinel", Form::Sentinel),
    ("valkey-sentinel", "valkeys-sentinel", Form::Sentinel),
];
const UNIX_SCHEMES: &[&str] = &["unix", "redis+unix", "valkey+unix"];

impl Form {
    fn example(self) -> &'static str {
        match self {
            Self::Single => "redis://user:password@host:port/database",
            Self::Cluster => "redis-cluster://user:password@host:port?node=host:port",
            Self::Sentinel => {
                "redis-sentinel://user:password@host:port/database?sentinelServiceName=name&node=host:port"
            }
            Self::Unix => {
                "redis+unix:///run/redis.sock, or redis+unix://user:password@localhost/run/redis.sock"
            }
        }
    }

    /// The parameters that mean something.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Single | Self::Unix => &[],
            Self::Cluster => &["node"],
            Self::Sentinel => &["node", "sentinelServiceName", "sentinelUsername", "sentinelPassword"],
        }
    }
}

pub(super) fn config_of(url: &str, how: Option<Tls>) -> Result<Config> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let known = SCHEMES.iter().find(|(plain, tls, _)| [*plain, *tls].contains(&scheme));
    let (plain, tls, form) = match known {
        Some((plain, tls, form)) => (*plain, scheme == *tls, *form),
        None if UNIX_SCHEMES.contains(&scheme) => ("redis+unix", false, Form::Unix),
        None => {
            return Err(refusal(
                "its scheme is not known; use redis://user:password@host:port/database, rediss:// for TLS, \
                 redis-cluster://, redis-sentinel://, or redis+unix:///path",
            ));
        }
    };
    let refuse = |fault: &str| Err(refusal(&format!("{fault}; use {}", form.example())));
    if let Err(fault) = check(form, rest) {
        return refuse(fault);
    }
    let config = match (tls, how) {
        (false, Some(_)) => {
            return Err(refusal("it asks for no TLS, but `tls` was given; use rediss://"));
        }
        // By the URL alone fred would look for the system's certificates, which need not be there.
        (true, Some(how)) => {
            Config::from_url(&format!("{plain}://{rest}")).map(|config| with_tls(config, how))
        }
        (false, None) if form == Form::Unix => Config::from_url(&with_host(plain, rest)),
        (false, None) => Config::from_url(url),
        (true, None) => {
            choose_cryptography();
            Config::from_url(url)
        }
    };
    let no_tls = "TLS needs one of the features tls-rustls, tls-rustls-ring, tls-native; they are off";
    match config {
        Ok(config) if tls && !config.uses_tls() => Err(refusal(no_tls)),
        Ok(config) => Ok(config),
        Err(_) if tls && !TLS => Err(refusal(no_tls)),
        Err(error) if is_of_tls(&error) => Err(refusal(&format!(
            "the system's certificates cannot be read ({}); install ca-certificates, name a file of certificates in \
             SSL_CERT_FILE, or give `tls`",
            error.details()
        ))),
        Err(_) if form == Form::Unix => {
            Err(refusal("a unix socket needs the feature unix-sockets; it is off"))
        }
        // fred's text may quote the URL.
        Err(_) => refuse(
            "it was not understood; in a user or password, write %25 for %, %40 for @, and so on for what is neither a \
             letter nor a digit",
        ),
    }
}

fn refusal(text: &str) -> Error {
    Error::new(ErrorKind::InvalidSetting, format!("the URL was refused: {text}"))
}

/// A user or password must be followed by a host, also where a path says all.
fn with_host(scheme: &str, rest: &str) -> String {
    match rest.split_once('/') {
        Some((login, path)) if login.ends_with('@') => format!("{scheme}://{login}localhost/{path}"),
        _ => format!("{scheme}://{rest}"),
    }
}

/// Looks at what follows the scheme, and says what is wrong with it.
fn check(form: Form, rest: &str) -> Result<(), &'static str> {
    if rest.contains('#') {
        return Err("it has a #, which means nothing here: in a user or password, write %23 for it");
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    // A socket's path may have an @.
    if query.contains('@') || (form != Form::Unix && path.contains('@')) {
        return Err(
            "it has an @ behind a / or a ?: in a user or password, write %2F for a /, %3F for a ?, %40 for an @",
        );
    }
    if form == Form::Unix {
        if path.is_empty() {
            return Err("it has no path");
        }
    } else {
        check_host(authority.rsplit('@').next().unwrap_or_default())?;
    }
    check_path(form, path)?;
    check_query(form, query)
}

/// `host`, `host:port`, `[address]:port`.
fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']').ok_or("a ] is missing in its host")?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or(rest)) })
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("its host has more than one colon: write an IPv6 address in brackets, [::1]:6379");
    }
    if name.is_empty() {
        return Err("it names no host");
    }
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err("its port is no number from 1 to 65535");
    }
    Ok(())
}

fn check_path(form: Form, path: &str) -> Result<(), &'static str> {
    match form {
        Form::Single | Form::Sentinel if !path.is_empty() && path.parse::<u8>().is_err() => {
            Err("its path, which is the database, is no number from 0 to 255")
        }
        Form::Cluster if !path.is_empty() && path != "0" => {
            Err("a Redis Cluster has database 0 alone; leave the path out")
        }
        Form::Single | Form::Sentinel | Form::Cluster | Form::Unix => Ok(()),
    }
}

fn check_query(form: Form, query: &str) -> Result<(), &'static str> {
    let pairs = || query.split('&').filter(|pair| !pair.is_empty());
    let pairs = || pairs().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    if pairs().any(|(name, _)| !form.parameters().contains(&name)) {
        return Err(match form {
            Form::Unix => {
                "it has a parameter that is not known (the database of a unix socket is set by `database`; in a password, \
                 write %3F for a ?)"
            }
            Form::Single | Form::Cluster | Form::Sentinel => {
                "it has a parameter that is not known (the database is the path, as in /2; in a password, write %3F for a ?)"
            }
        });
    }
    if pairs().any(|(name, value)| name == "node" && !value.contains(':') && !value.contains("%3")) {
        return Err("a node is given without its port");
    }
    let named = || pairs().any(|(name, value)| name == "sentinelServiceName" && !value.is_empty());
    if form == Form::Sentinel && !named() {
        return Err("it does not say which service the sentinels are asked for, by sentinelServiceName");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let error = config_of(url, None).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{url}: {error}");
        error.to_string()
    }

    /// Promise: a part of a password at the wrong place reaches no text, and no look-up of a name.
    #[test]
    fn what_may_be_part_of_a_password_is_refused_and_not_repeated() {
        for (url, advice) in [
            ("redis://user:hunter#2@127.0.0.1:7912", "%23"),
            ("redis://hunter#@127.0.0.1", "%23"),
            ("redis://user:1234?hunter@127.0.0.1:7912", "%3F"),
            ("redis://user:1234?hunter", "%3F"),
            ("redis://user:1234?hunter=2@127.0.0.1", "%3F"),
            ("redis://user:1234/hunter@127.0.0.1", "%2F"),
            ("redis://user:hunter/2@127.0.0.1", "%2F"),
            ("redis://user:hunter", "port"),
            ("redis://:p%hunter@[::1", "]"),
            ("redis-cluster://user:1234?hunter@h:1", "%3F"),
            ("redis-cluster://h:1?node=hunter", "port"),
            ("redis-sentinel://h?sentinelServiceName=x&hunter=1", "not known"),
            ("redis+unix://:hunter?x@/x.sock", "%3F"),
        ] {
            let text = refused(url);
            assert!(text.contains(advice) && text.contains("://"), "{url}: {text}");
            assert!(!text.contains("hunter") && !text.contains("1234"), "{url}: {text}");
        }
    }

    /// Promise: what fred would pass over in silence is refused, and the text names what is wrong.
    #[test]
    fn what_would_mean_nothing_is_refused_by_its_name() {
        for (url, fault) in [
            ("redis://h?database=2", "parameter"),
            ("redis://h?db=5", "the database is the path"),
            ("redis://h?node=h:1", "parameter"),
            ("redis://user:p@h:99999", "its port"),
            ("redis://user:p@h:0", "its port"),
            ("redis://::1:6379", "brackets"),
            ("redis://", "no host"),
            ("redis://:p@", "no host"),
            ("redis://h/two", "database"),
            ("redis://h/256", "database"),
            ("redis-cluster://h:1/3", "database 0"),
            (
                "redis-sentinel://h",
                "redis-sentinel://user:password@host:port/database?sentinelServiceName=name",
            ),
            ("redis-sentinel://h:1/0?sentinelServiceName=", "sentinelServiceName"),
        ] {
            let text = refused(url);
            assert!(text.contains(fault) && text.contains(" use redis"), "{url}: {text}");
        }
    }

    /// Promise: the forms that the documentation of `connect_url` shows are taken.
    #[test]
    fn the_documented_forms_are_taken() {
        let config = |url: &str| config_of(url, None).expect(url);
        let plain = config("redis://user:p%40%23%3F%2F@h:7000/2");
        assert_eq!((plain.username.as_deref(), plain.password.as_deref()), (Some("user"), Some("p@#?/")));
        assert_eq!(plain.database, Some(2));
        assert_eq!(config("redis://[::1]:7000/").server.hosts()[0].port, 7000);
        assert_eq!(config("valkey://h").server.hosts()[0].port, 6379);
        let cluster = config("redis-cluster://:p@a:1?node=b:2&node=c:3");
        assert!(cluster.server.is_clustered() && cluster.server.hosts().len() == 3);
        let sentinel = config("redis-sentinel://user:p@a:1/3?sentinelServiceName=mymaster&node=b:2");
        assert!(sentinel.server.is_sentinel() && sentinel.database == Some(3));
    }

    #[cfg(feature = "unix-sockets")]
    #[test]
    fn a_unix_socket_takes_a_password_with_and_without_a_host() {
        for url in ["unix:///a@b/x.sock", "redis+unix:///a@b/x.sock"] {
            let config = config_of(url, None).expect(url);
            assert_eq!((config.username, config.password), (None, None), "{url}");
        }
        for url in [
            "redis+unix://:pw@/a@b/x.sock",
            "redis+unix://:pw@localhost/a@b/x.sock",
            "valkey+unix://:pw@/a@b/x.sock",
        ] {
            let config = config_of(url, None).expect(url);
            assert_eq!((config.username.as_deref(), config.password.as_deref()), (None, Some("pw")), "{url}");
            let path = "/a@b/x.sock".into();
            assert_eq!(config.server, fred::types::config::ServerConfig::Unix { path }, "{url}");
        }
        assert!(refused("redis+unix://x.sock").contains("no path"));
        assert!(refused("redis+unix:///x.sock?db=2").contains("`database`"));
    }
}
