//! Who may ask a server without keys. Only programs of this machine reach its address, but a browser is one of
//! them, and shows pages of other sites: by a name of theirs that is resolved to this machine (DNS rebinding), or
//! by requests across sites. Both tell whose page it is.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::ApiError;

/// Answers only this machine's own names, if there are no keys.
pub async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.options.api_keys.is_empty()
        && let Err(error) = check_headers(request.headers(), request.uri(), app.options.host)
    {
        return error.into_response();
    }
    next.run(request).await
}

/// Programs that are no browsers may leave both headers out.
fn check_headers(headers: &HeaderMap, uri: &Uri, bound: IpAddr) -> Result<(), ApiError> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let hosts = headers.get_all(header::HOST).iter().map(text);
    let hosts = hosts.chain(uri.authority().map(Authority::to_string));
    for host in hosts {
        let authority = host.parse::<Authority>();
        if !authority.is_ok_and(|authority| is_own(authority.host(), bound)) {
            return Err(ApiError::other_site("Host", &host));
        }
    }
    for origin in headers.get_all(header::ORIGIN).iter().map(text) {
        let site = origin.parse::<Uri>();
        let host = site.as_ref().ok().and_then(Uri::host);
        if !host.is_some_and(|host| is_own(host, bound)) {
            return Err(ApiError::other_site("Origin", &origin));
        }
    }
    Ok(())
}

/// Whether a host is a name or an address of this machine alone, or the one that the server listens at.
fn is_own(host: &str, bound: IpAddr) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == bound,
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::http::HeaderName;

    use super::*;

    fn checked(headers: &[(HeaderName, &str)]) -> Result<(), ApiError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        check_headers(
            &map,
            &Uri::from_static("/v1/models"),
            Ipv4Addr::LOCALHOST.into(),
        )
    }

    #[test]
    fn own_names_and_addresses_are_answered() {
        for host in [
            "localhost",
            "LocalHost:8000",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]:8000",
            "127.0.0.2:80",
        ] {
            assert_eq!(checked(&[(header::HOST, host)]), Ok(()), "{host}");
            let origin = format!("http://{host}");
            let both = [(header::HOST, host), (header::ORIGIN, &origin)];
            assert_eq!(checked(&both), Ok(()), "{origin}");
        }
        assert_eq!(checked(&[]), Ok(()));
        let bound = "192.168.1.7".parse().unwrap();
        assert!(is_own("192.168.1.7", bound) && !is_own("192.168.1.8", bound));
    }

    #[test]
    fn other_sites_are_refused() {
        for host in [
            "evil.com",
            "evil.com:8000",
            "localhost.evil.com",
            "127.0.0.1.evil.com:8000",
            "localhost@evil.com",
            "10.0.0.1",
            "0.0.0.0:8000",
            "",
        ] {
            let error = checked(&[(header::HOST, host)]).expect_err(host);
            assert_eq!(error.status.as_u16(), 403);
            assert!(error.message.contains("--api-key"), "{error}");
            let twice = [(header::HOST, "localhost"), (header::HOST, host)];
            assert!(checked(&twice).is_err(), "{host}");
        }
        for origin in [
            "http://evil.com",
            "https://evil.com:8000",
            "null",
            "file://",
            "",
        ] {
            let headers = [(header::HOST, "localhost:8000"), (header::ORIGIN, origin)];
            let error = checked(&headers).expect_err(origin);
            assert_eq!(error.status.as_u16(), 403, "{origin}");
        }
        let uri = Uri::from_static("http://evil.com/v1/models");
        let bound = Ipv4Addr::LOCALHOST.into();
        assert!(check_headers(&HeaderMap::new(), &uri, bound).is_err());
    }
}
