//! A small Hugging Face Hub on 127.0.0.1, with one thread for each connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, thread};

/// A file of a repository. `large` ones are answered by a redirect to a store, as the Hub's are.
#[derive(Debug, Clone)]
pub struct HubFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it lies in the store.
    pub large: bool,
}

/// What the Hub has, what befalls its visitors, and what they did.
#[derive(Debug, Default)]
pub struct HubState {
    /// Files by `models/OWNER/NAME` or `datasets/OWNER/NAME`, and their paths.
    pub repos: BTreeMap<String, BTreeMap<String, HubFile>>,
    /// Other names of the commit than `main`.
    pub revisions: Vec<String>,
    /// What a visitor has to have.
    pub token: Option<String>,
    /// The status for whoever has no such token.
    pub refusal: u16,
    /// Connections that break after so many bytes of a file.
    pub breaks: Vec<usize>,
    /// Connections that fall silent after so many bytes of a file, and stay open.
    pub stalls: Vec<usize>,
    /// Requests to come that get no answer, though the connection stays open.
    pub mutes: usize,
    /// Requests: method, path, and the `Range` of one for a file.
    pub log: Vec<String>,
    /// Bodies of requests that write, by their paths.
    pub written: Vec<(String, Vec<u8>)>,
}

/// The running server. Its thread ends with the process.
#[derive(Debug, Clone)]
pub struct HubServer {
    state: Arc<Mutex<HubState>>,
    /// What `HF_ENDPOINT` has to be.
    pub endpoint: String,
}

/// The commit that every revision is.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl HubServer {
    /// Begins to listen, with nothing in it.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let endpoint = format!("http://{address}");
        let state = Arc::new(Mutex::new(HubState {
            refusal: 401,
            ..HubState::default()
        }));
        let server = Self { state, endpoint };
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                thread::spawn(move || server.connection(&stream));
            }
        });
        server
    }

    /// What it has and has seen.
    pub fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the files of a folder into a repository; those of 1 KB and more into the store.
    ///
    /// # Panics
    /// If they cannot be read.
    pub fn add_folder(&self, repo: &str, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_file() {
                let bytes = fs::read(entry.path()).expect("a file");
                self.add(repo, &entry.file_name().to_string_lossy(), bytes);
            }
        }
    }

    /// Puts a file into a repository.
    pub fn add(&self, repo: &str, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let large = bytes.len() >= 1024;
        let mut state = self.state();
        let files = state.repos.entry(repo.to_owned()).or_default();
        files.insert(path.to_owned(), HubFile { bytes, large });
    }

    /// The requests for a file so far.
    pub fn requests(&self, text: &str) -> usize {
        let state = self.state();
        state.log.iter().filter(|line| line.contains(text)).count()
    }

    fn connection(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader) {
            if !self.answer(&request, stream) {
                return;
            }
        }
    }

    /// Answers; false if the connection is to break.
    fn answer(&self, request: &Request, stream: &TcpStream) -> bool {
        let range = request.header("range").unwrap_or_default();
        let line = format!("{} {} {range}", request.method, request.path);
        let mut state = self.state();
        state.log.push(line.trim_end().to_owned());
        if let Some(left) = state.mutes.checked_sub(1) {
            state.mutes = left;
            drop(state);
            be_silent(stream);
            return false;
        }
        drop(state);
        if let Some(store) = request.path.strip_prefix("/store/") {
            if request.method == "PUT" {
                return self.written(request, stream);
            }
            return match self.file(store) {
                Some(file) => self.send_file(request, stream, &file, false),
                None => plain(stream, 404, "{}"),
            };
        }
        let state = self.state();
        let (token, refusal) = (state.token.clone(), state.refusal);
        drop(state);
        let given = request.header("authorization");
        if token.is_some_and(|token| given != Some(format!("Bearer {token}").as_str())) {
            return plain(stream, refusal, "{\"error\":\"no\"}");
        }
        if request.method == "POST" {
            return self.written(request, stream);
        }
        let path = request.path.trim_start_matches('/');
        if let Some(path) = path.strip_prefix("api/") {
            return self.info(path, stream);
        }
        let Some((repo, rest)) = path.split_once("/resolve/") else {
            return plain(stream, 404, "{}");
        };
        let repo = match repo.starts_with("datasets/") {
            true => repo.to_owned(),
            false => format!("models/{repo}"),
        };
        let (revision, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !self.knows(revision) {
            return plain(stream, 404, "{}");
        }
        match self.file(&format!("{repo}/{path}")) {
            Some(file) => self.send_file(request, stream, &file, true),
            None => plain(stream, 404, "{}"),
        }
    }

    fn knows(&self, revision: &str) -> bool {
        let state = self.state();
        let mut others = state.revisions.iter();
        revision == "main" || revision == COMMIT || others.any(|other| other == revision)
    }

    fn file(&self, path: &str) -> Option<(String, HubFile)> {
        let mut parts = path.splitn(4, '/');
        let repo = [parts.next()?, parts.next()?, parts.next()?].join("/");
        let file = self.state().repos.get(&repo)?.get(parts.next()?)?.clone();
        Some((path.to_owned(), file))
    }

    /// What `api/models/OWNER/NAME/revision/REVISION` answers.
    fn info(&self, path: &str, stream: &TcpStream) -> bool {
        let (repo, revision) = path.split_once("/revision/").unwrap_or((path, "main"));
        if !self.knows(revision) {
            return plain(stream, 404, "{}");
        }
        let state = self.state();
        let Some(files) = state.repos.get(repo) else {
            return plain(stream, 404, "{}");
        };
        let files = files
            .keys()
            .map(|path| format!("{{\"rfilename\":\"{path}\"}}"));
        let files: Vec<String> = files.collect();
        let body = format!(
            "{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}",
            files.join(",")
        );
        plain(stream, 200, &body)
    }

    /// A file, or what the `Range` asks of it; `to_store` sends large ones elsewhere.
    fn send_file(
        &self,
        request: &Request,
        mut stream: &TcpStream,
        (path, file): &(String, HubFile),
        to_store: bool,
    ) -> bool {
        let (bytes, size) = (&file.bytes, file.bytes.len());
        let digest = bytes.iter().fold(1469598103934665603_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(1099511628211)
        });
        let about = format!("ETag: \"{digest:016x}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
        if to_store && file.large {
            let head = format!(
                "HTTP/1.1 302 Found\r\n{about}X-Linked-Etag: \"{digest:016x}\"\r\n\
                 Location: {}/store/{path}\r\nContent-Length: 0\r\n\r\n",
                self.endpoint
            );
            return stream.write_all(head.as_bytes()).is_ok();
        }
        let range = request.header("range").and_then(|range| {
            let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
            let from: usize = from.parse().ok()?;
            Some(from..to.parse().map_or(size, |to: usize| to + 1).min(size))
        });
        let range = range.unwrap_or(0..size);
        if range.start > range.end || (range.is_empty() && size > 0) {
            return plain(stream, 416, "");
        }
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\n{about}Content-Range: bytes {}-{}/{size}\r\n\
             Content-Length: {}\r\n\r\n",
            range.start,
            range.end.saturating_sub(1),
            range.len()
        );
        let part = &bytes[range];
        // They wait for a part that is longer.
        let due = |cuts: &mut Vec<usize>| cuts.pop_if(|cut| *cut < part.len());
        let mut state = self.state();
        let cut = due(&mut state.breaks);
        let stall = due(&mut state.stalls);
        drop(state);
        let sent = &part[..cut.or(stall).unwrap_or(part.len())];
        let is_sent = stream.write_all(head.as_bytes()).is_ok() && stream.write_all(sent).is_ok();
        if stall.is_some() {
            be_silent(stream);
        }
        is_sent && cut.is_none() && stall.is_none()
    }

    /// What is pushed, and the answer of each step of it.
    fn written(&self, request: &Request, stream: &TcpStream) -> bool {
        let (path, body) = (request.path.clone(), request.body.clone());
        let text = String::from_utf8_lossy(&body).into_owned();
        self.state().written.push((path.clone(), body));
        if path.contains("/preupload/") {
            // Safetensors go to the store.
            let names = text.split("\"path\":\"").skip(1);
            let names = names.filter_map(|rest| rest.split('"').next());
            let mode = |name: &str| match name.ends_with(".safetensors") {
                true => "lfs",
                false => "regular",
            };
            let files = names
                .map(|name| format!("{{\"path\":\"{name}\",\"uploadMode\":\"{}\"}}", mode(name)));
            let files = files.collect::<Vec<_>>().join(",");
            return plain(stream, 200, &format!("{{\"files\":[{files}]}}"));
        }
        if path.ends_with("/objects/batch") {
            let oids = text.split("\"oid\":\"").skip(1);
            let oids = oids.filter_map(|rest| rest.split('"').next());
            let end = &self.endpoint;
            // Parts of a thousand bytes.
            let objects = oids.map(|oid| {
                let parts = (1..=1999).map(|n| format!("\"{n:05}\":\"{end}/store/{oid}/{n}\""));
                let parts = parts.collect::<Vec<_>>().join(",");
                format!(
                    "{{\"oid\":\"{oid}\",\"actions\":{{\"upload\":{{\"href\":\"{end}/complete/{oid}\",\
                     \"header\":{{\"chunk_size\":\"1000\",{parts}}}}},\
                     \"verify\":{{\"href\":\"{end}/verify/{oid}\"}}}}}}"
                )
            });
            let objects = objects.collect::<Vec<_>>().join(",");
            return plain(stream, 200, &format!("{{\"objects\":[{objects}]}}"));
        }
        if path.contains("/commit/") {
            let url = format!("{}/commit/{COMMIT}", self.endpoint);
            return plain(stream, 200, &format!("{{\"commitUrl\":\"{url}\"}}"));
        }
        plain(stream, 200, "{}")
    }
}

/// Waits until the visitor has gone.
fn be_silent(mut stream: &TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).is_ok_and(|count| count > 0) {}
}

fn plain(mut stream: &TcpStream, status: u16, body: &str) -> bool {
    let answer = format!(
        "HTTP/1.1 {status} Status\r\nETag: \"part\"\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).is_ok()
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => break,
            }
        }
        let mut request = Self {
            method,
            path,
            headers,
            body: Vec::new(),
        };
        let length = request
            .header("content-length")
            .and_then(|n| n.parse().ok());
        request.body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}
