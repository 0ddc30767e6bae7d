//! The Hub against a server on 127.0.0.1.

use std::fs;
use std::path::Path;
use std::time::Duration;

use qoft_fixtures::hub::{COMMIT, HubServer};
use qoft_hub::{Content, Hub, HubError, HubName, Silent, Transfer};
use tempfile::TempDir;

struct Case {
    server: HubServer,
    cache: TempDir,
}

impl Case {
    /// A server with a model, an adapter and a data set.
    fn new() -> Self {
        let server = HubServer::start();
        server.add("models/o/m", "config.json", "{\"model_type\":\"x\"}");
        server.add("models/o/m", "model.safetensors", weights());
        server.add("models/o/m", "pytorch_model.bin", "x");
        server.add("models/o/m", "README.md", "x");
        server.add("datasets/o/d", "data/train-00000-of-00002.parquet", "1");
        server.add("datasets/o/d", "data/train-00001-of-00002.parquet", "2");
        server.add("datasets/o/d", "data/test-00000-of-00001.parquet", "3");
        let cache = tempfile::tempdir().unwrap();
        Self { server, cache }
    }

    fn hub(&self) -> Hub {
        Hub::new(&self.server.endpoint, self.cache.path(), None)
    }

    fn fetch(&self, name: &str, content: Content) -> Result<std::path::PathBuf, HubError> {
        self.hub()
            .fetch(&HubName::parse(name).unwrap(), content, &mut Silent)
    }
}

fn weights() -> Vec<u8> {
    (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_comes_into_the_cache_that_python_shares_and_once() {
    let case = Case::new();
    let folder = case.fetch("o/m", Content::Model).unwrap();
    assert_eq!(
        folder,
        case.cache
            .path()
            .join("models--o--m/snapshots")
            .join(COMMIT)
    );
    assert_eq!(names(&folder), ["config.json", "model.safetensors"]);
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );
    let refs = case.cache.path().join("models--o--m/refs/main");
    assert_eq!(fs::read_to_string(refs).unwrap(), COMMIT);
    let before = case.server.requests("/resolve/");
    assert_eq!(case.fetch("o/m", Content::Model).unwrap(), folder);
    assert_eq!(case.server.requests("/resolve/"), before);
}

/// What is noted, and the bytes of the last file.
#[derive(Default)]
struct Heard(Vec<String>, u64);

impl Transfer for Heard {
    fn file(&mut self, _: &str, _: u64) {
        self.1 = 0;
    }
    fn bytes(&mut self, more: u64) {
        self.1 += more;
    }
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn what_broke_off_goes_on_at_its_byte() {
    let case = Case::new();
    // The last one comes first: of the configuration, and twice of the weights.
    case.server.state().breaks = vec![50_000, 100_000, 3];
    let mut heard = Heard::default();
    let name = HubName::parse("o/m").unwrap();
    let folder = case.hub().fetch(&name, Content::Model, &mut heard).unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(heard.0.len(), 3, "{:?}", heard.0);
    assert_eq!(
        case.server
            .requests("/store/models/o/m/model.safetensors bytes=100000-"),
        1
    );
    assert_eq!(
        case.server
            .requests("/store/models/o/m/model.safetensors bytes=150000-"),
        1
    );
}

#[test]
fn a_hub_that_falls_silent_is_asked_once_more() {
    let case = Case::new();
    let name = HubName::parse("o/m").unwrap();
    let hub = || case.hub().with_patience(Duration::from_millis(300));
    // In the middle of the weights: what came is kept, and a request that brought something is no failure.
    case.server.state().stalls = vec![100_000];
    let mut heard = Heard::default();
    let folder = hub().fetch(&name, Content::Model, &mut heard).unwrap();
    let weights_here = folder.join("model.safetensors");
    assert_eq!(fs::read(&weights_here).unwrap(), weights());
    let asked = "/store/models/o/m/model.safetensors bytes=100000-";
    assert_eq!(case.server.requests(asked), 1);
    assert_eq!((heard.0.len(), heard.1), (0, 300_000), "{:?}", heard.0);
    // Before a byte came.
    fs::remove_file(fs::canonicalize(&weights_here).unwrap()).unwrap();
    fs::remove_file(&weights_here).unwrap();
    // The store is asked for the size before, and nobody waits for the byte of that answer.
    case.server.state().stalls = vec![0; 4];
    let mut heard = Heard::default();
    hub().fetch(&name, Content::Model, &mut heard).unwrap();
    assert_eq!(fs::read(&weights_here).unwrap(), weights());
    let note = "o/m/model.safetensors: nothing came for 0.3 seconds; once more";
    assert_eq!(heard.0, [note, note]);
    // Without an answer at all the cache is used.
    case.server.state().mutes = 1;
    let mut heard = Heard::default();
    hub().fetch(&name, Content::Model, &mut heard).unwrap();
    assert!(
        heard.0[0].contains("nothing came for 0.3 seconds"),
        "{:?}",
        heard.0
    );
    assert!(heard.0[0].contains("the cache"), "{:?}", heard.0);
    // And in the end it is given up.
    let other = Case::new();
    other.server.state().stalls = vec![0; 99];
    let hub = other.hub().with_patience(Duration::from_millis(50));
    let error = hub.fetch(&name, Content::Model, &mut Silent).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("fetching config.json: nothing came for 0.05"),
        "{error}"
    );
}

#[test]
fn a_file_that_was_whole_when_the_program_died_is_fetched_again() {
    let case = Case::new();
    let folder = case.fetch("o/m", Content::Model).unwrap();
    let link = folder.join("model.safetensors");
    let blob = fs::canonicalize(&link).unwrap();
    fs::rename(&blob, blob.with_extension("part")).unwrap();
    fs::remove_file(&link).unwrap();
    case.fetch("o/m", Content::Model).unwrap();
    assert_eq!(fs::read(&link).unwrap(), weights());
}

#[test]
fn revisions_and_files_are_pinned() {
    let case = Case::new();
    case.server.state().revisions.push("v1".into());
    let file = case.fetch("o/m@v1/config.json", Content::Model).unwrap();
    assert!(file.ends_with(format!("{COMMIT}/config.json")));
    assert!(case.server.requests("/resolve/v1/config.json") > 0);
    let error = case
        .fetch("o/m@v2", Content::Model)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("o/m@v2: "), "{error}");
    let error = case
        .fetch("o/m/nothing", Content::Model)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no `nothing` in it"), "{error}");
}

#[test]
fn of_data_the_files_for_training_come() {
    let case = Case::new();
    let folder = case.fetch("o/d", Content::Data).unwrap();
    let expected = [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ];
    assert_eq!(names(&folder), expected);
    let test = case
        .fetch("o/d/data/test-00000-of-00001.parquet", Content::Data)
        .unwrap();
    assert_eq!(fs::read(test).unwrap(), b"3");
}

#[test]
fn only_the_shards_of_the_index_come() {
    let case = Case::new();
    let server = &case.server;
    let index = "{\"weight_map\":{\"a\":\"model-1.safetensors\"}}";
    server.add("models/o/s", "model.safetensors.index.json", index);
    server.add("models/o/s", "model-1.safetensors", "1");
    server.add("models/o/s", "old-1.safetensors", "2");
    let folder = case.fetch("o/s", Content::Model).unwrap();
    assert_eq!(
        names(&folder),
        ["model-1.safetensors", "model.safetensors.index.json"]
    );
}

#[test]
fn the_only_gguf_is_the_model_and_parts_come_together() {
    let case = Case::new();
    case.server.add("models/o/g", "x.gguf", "1");
    let file = case.fetch("o/g", Content::Model).unwrap();
    assert_eq!(fs::read(file).unwrap(), b"1");
    case.server.add("models/o/p", "y-00001-of-00002.gguf", "1");
    case.server.add("models/o/p", "y-00002-of-00002.gguf", "2");
    case.server.add("models/o/p", "z-00001-of-00002.gguf", "3");
    let file = case
        .fetch("o/p/y-00001-of-00002.gguf", Content::Model)
        .unwrap();
    assert_eq!(
        names(file.parent().unwrap()),
        ["y-00001-of-00002.gguf", "y-00002-of-00002.gguf"]
    );
}

#[test]
fn whoever_may_not_read_is_told_what_to_do() {
    let case = Case::new();
    case.server.state().token = Some("secret".into());
    let says = |hub: Hub| {
        let name = HubName::parse("o/m").unwrap();
        hub.fetch(&name, Content::Model, &mut Silent)
            .unwrap_err()
            .to_string()
    };
    let error = says(case.hub());
    assert!(
        error.contains("no such model, or it is private and HF_TOKEN"),
        "{error}"
    );
    case.server.state().refusal = 403;
    let error = says(Hub::new(
        &case.server.endpoint,
        case.cache.path(),
        Some("wrong"),
    ));
    assert!(error.contains("(403): accept the terms at"), "{error}");
    let hub = Hub::new(&case.server.endpoint, case.cache.path(), Some("secret"));
    let name = HubName::parse("o/m").unwrap();
    assert!(hub.fetch(&name, Content::Model, &mut Silent).is_ok());
}

#[test]
fn without_the_network_the_cache_is_taken() {
    let case = Case::new();
    let folder = case.fetch("o/m", Content::Model).unwrap();
    let away = Hub::new("http://127.0.0.1:1", case.cache.path(), None);
    let name = |text: &str| HubName::parse(text).unwrap();
    assert_eq!(
        away.fetch(&name("o/m"), Content::Model, &mut Silent)
            .unwrap(),
        folder
    );
    let error = away
        .fetch(&name("o/x"), Content::Model, &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is not in the cache") && error.contains("cannot be reached"),
        "{error}"
    );
}

#[test]
fn files_that_lead_out_of_the_cache_are_refused() {
    let case = Case::new();
    case.server.add("models/o/m", "../../x.json", "x");
    let error = case.fetch("o/m", Content::Model).unwrap_err().to_string();
    assert!(error.contains("no Hub that can be trusted"), "{error}");
}

#[test]
fn a_folder_is_pushed_as_one_commit() {
    let case = Case::new();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("adapter_config.json", b"{}");
    write("adapter_model.safetensors", &weights()[..2500]);
    write(".lock", b"");
    fs::create_dir(folder.path().join("checkpoint-1")).unwrap();
    write("checkpoint-1/optimizer.bin", b"x");
    let name = HubName::parse("o/new").unwrap();
    let push = |hub: Hub| hub.push(folder.path(), &name, true, "First", &mut Silent);
    let error = push(case.hub()).unwrap_err().to_string();
    assert!(error.contains("set HF_TOKEN"), "{error}");

    let pushed = push(Hub::new(
        &case.server.endpoint,
        case.cache.path(),
        Some("t"),
    ))
    .unwrap();
    assert_eq!(pushed.files, 2);
    assert!(pushed.url.ends_with(COMMIT), "{}", pushed.url);
    let state = case.server.state();
    let paths: Vec<&str> = state
        .written
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    let oid = paths[3].split('/').nth(2).unwrap();
    let expected = [
        "/api/repos/create".to_owned(),
        "/api/models/o/new/preupload/main".into(),
        "/o/new.git/info/lfs/objects/batch".into(),
        format!("/store/{oid}/1"),
        format!("/store/{oid}/2"),
        format!("/store/{oid}/3"),
        format!("/complete/{oid}"),
        format!("/verify/{oid}"),
        "/api/models/o/new/commit/main".into(),
    ];
    assert_eq!(paths, expected);
    let sent: Vec<u8> = state.written[3..6]
        .iter()
        .flat_map(|(_, body)| body.clone())
        .collect();
    assert_eq!(sent, weights()[..2500]);
    let commit = String::from_utf8(state.written[8].1.clone()).unwrap();
    let lines: Vec<&str> = commit.lines().collect();
    assert!(lines[0].contains("\"summary\":\"First\""), "{commit}");
    assert!(
        lines[1].contains("adapter_config.json") && lines[1].contains("\"e30=\""),
        "{commit}"
    );
    assert!(
        lines[2].contains("lfsFile") && lines[2].contains(oid),
        "{commit}"
    );
}

#[test]
fn nothing_changes_if_the_user_may_not_write() {
    let case = Case::new();
    {
        let mut state = case.server.state();
        (state.token, state.refusal) = (Some("other".into()), 403);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let hub = Hub::new(&case.server.endpoint, case.cache.path(), Some("t"));
    let name = HubName::parse("o/m").unwrap();
    let error = hub
        .push(folder.path(), &name, false, "m", &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a token that may write it"), "{error}");
    assert!(case.server.state().written.is_empty());
}
