//! Downloads over HTTP, with TLS.

use std::time::Duration;

use fl_datasets::fetch::{Body, Transport};
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_RANGE, RANGE};

/// An HTTP client.
pub(crate) struct Http {
    agent: ureq::Agent,
}

impl Http {
    pub(crate) fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .user_agent(concat!("fledgling/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
        }
    }
}

impl Transport for Http {
    fn open(&self, url: &str, offset: u64) -> Result<Body<'_>, String> {
        let mut request = self.agent.get(url);
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = request.call().map_err(|error| error.to_string())?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .and_then(first_byte)
                .ok_or("the server sent a part of the file without saying which")?,
            _ => 0,
        };
        Ok(Body {
            start,
            reader: Box::new(response.into_body().into_reader()),
        })
    }
}

/// The first byte of `bytes FIRST-LAST/TOTAL`.
fn first_byte(range: &str) -> Option<u64> {
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A server that gives these answers to as many connections, and the requests it saw.
    #[expect(
        clippy::disallowed_methods,
        reason = "the other end of a connection needs a thread of its own"
    )]
    fn server(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let seen = std::thread::spawn(move || {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                seen.push(String::from_utf8(request).unwrap().to_lowercase());
            }
            seen
        });
        (url, seen)
    }

    #[test]
    fn ranges_are_asked_for_and_understood() {
        let (url, seen) = server(&[
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-5/6\r\nContent-Length: 3\r\nConnection: close\r\n\r\ndef",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabcdef",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ]);
        let http = Http::new();
        for (offset, start, expected) in [(3, 3, "def"), (3, 0, "abcdef")] {
            let mut body = http.open(&url, offset).unwrap();
            let mut text = String::new();
            body.reader.read_to_string(&mut text).unwrap();
            assert_eq!((body.start, text.as_str()), (start, expected));
        }
        let refused = http.open(&url, 0).unwrap_err();
        assert!(refused.contains("404"), "{refused}");
        let seen = seen.join().unwrap();
        assert!(seen[0].contains("range: bytes=3-"), "{}", seen[0]);
        assert!(!seen[2].contains("range:"), "{}", seen[2]);
    }

    #[test]
    fn content_ranges() {
        assert_eq!(first_byte("bytes 10-19/20"), Some(10));
        assert_eq!(first_byte("bytes */20"), None);
        assert_eq!(first_byte("10-19/20"), None);
    }
}
