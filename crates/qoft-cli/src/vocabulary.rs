//! Models with more tokens than their folder has: those that adapters bring along, and new ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use qoft::Registries;
use qoft::core::WEIGHT;
use qoft::models::ModelFolder;
use qoft::peft::{self, AdapterConfig, Families};
use qoft::train::tokenizer::{ChatTemplates, NewToken, add_tokens};
use qoft::train::train::{is_checkpoint, is_emergency};
use serde_json::Value;

use crate::args::AdapterArg;
use crate::files;
use crate::print::{errln, warnln};

/// The file that a tokenizer cannot do without.
const TOKENIZER: &str = "tokenizer.json";
/// The key of modules that train whole.
const MODULES: &str = "modules_to_save";

/// Opens a model with the tokens, the tokenizer and the chat templates of its adapters.
pub fn open(registries: &Registries, path: &Path, adapters: &[AdapterArg]) -> Result<ModelFolder> {
    let folders: Vec<&Path> = adapters.iter().map(|arg| arg.folder.as_path()).collect();
    of_adapters(files::open(registries, path)?, &folders)
}

/// The model with what adapters have beside them: tokens, and the chat templates that they were trained with, of
/// which those of the last one win.
pub fn of_adapters(model: ModelFolder, adapters: &[&Path]) -> Result<ModelFolder> {
    let mut model = with_tokens_of(model, adapters)?;
    for adapter in adapters {
        if let Some(templates) = templates_of(&model, adapter)? {
            model = with_templates(model, &templates)?;
        }
    }
    Ok(model)
}

/// The chat templates that an adapter was trained with, if they are others than the model's.
pub fn templates_of(model: &ModelFolder, adapter: &Path) -> Result<Option<ChatTemplates>> {
    let Some(folder) = tokenizer_of(adapter) else {
        return Ok(None);
    };
    let own = ChatTemplates::of_folder(&folder)?;
    let of_model = ChatTemplates::of_folder(model.checkpoint().dir())?;
    // Adapters of other programs have the first template of several only.
    let is_other = own.plain().is_some() && own.plain() != of_model.plain();
    Ok(is_other.then_some(own))
}

/// The model with other chat templates.
pub fn with_templates(model: ModelFolder, templates: &ChatTemplates) -> Result<ModelFolder> {
    let small_files = qoft::copy_small_files(&model)?;
    templates.write(small_files.path())?;
    let checkpoint = model.checkpoint().clone().with_small_files(small_files);
    Ok(model.with_checkpoint(checkpoint))
}

/// The model with as many tokens as the adapters' own tables of tokens have, and with the tokenizer that lies
/// beside such an adapter.
pub fn with_tokens_of(mut model: ModelFolder, adapters: &[&Path]) -> Result<ModelFolder> {
    for adapter in adapters {
        // What is wrong with it is said where it is read.
        let Some(rows) = rows(&model, adapter) else {
            continue;
        };
        let tokenizer = tokenizer_of(adapter);
        let has_rows = rows <= model.spec()?.config().vocab_size;
        let content = |folder: &Path| std::fs::read(folder.join(TOKENIZER)).ok();
        let of_model = content(model.checkpoint().dir());
        let same = |folder: &PathBuf| content(folder) == of_model;
        if has_rows && tokenizer.as_ref().is_none_or(same) {
            continue;
        }
        let small_files = qoft::copy_small_files(&model)?;
        match tokenizer {
            Some(tokenizer) => qoft::replace_tokenizer(&tokenizer, small_files.path())?,
            None => warnln!(
                "{}: the adapter is of a model with {rows} tokens and has no {TOKENIZER}: the tokenizer is \
                 that of the model, which does not know the new ones",
                adapter.display()
            ),
        }
        model = qoft::with_tokens(&model, rows, small_files)?;
    }
    Ok(model)
}

/// Rows of the table of tokens or of the head that an adapter has instead of the model's.
fn rows(model: &ModelFolder, adapter: &Path) -> Option<usize> {
    let spec = model.known()?;
    let (names, width) = (spec.names(), spec.config().hidden_size);
    let shapes = peft::saved_shapes(adapter).ok()?;
    let is_one = |name: &str| {
        let ends = |path: &str| name == format!("{path}.{WEIGHT}");
        // Other versions of transformers have other names before it.
        ends(names.head)
            || ends(&names.token_table())
            || name.ends_with(&format!(".{}.{WEIGHT}", names.tokens))
    };
    let tables = shapes.into_iter().filter(|(name, _)| is_one(name));
    let rows = tables.filter_map(|(_, shape)| match shape[..] {
        [rows, columns] if columns == width => Some(rows),
        _ => None,
    });
    rows.max()
}

/// The folder with the tokenizer of an adapter: its own, or for a checkpoint that of its run.
fn tokenizer_of(adapter: &Path) -> Option<PathBuf> {
    let run = adapter
        .parent()
        .filter(|_| is_checkpoint(adapter) || is_emergency(adapter));
    let mut folders = [Some(adapter), run].into_iter().flatten();
    let found = folders.find(|folder| folder.join(TOKENIZER).is_file());
    found.map(Path::to_owned)
}

/// A model to be trained, and the modules that train whole because of its new tokens.
pub struct Grown {
    /// The model.
    pub model: ModelFolder,
    /// Last components of their paths; none if there are no new tokens.
    pub whole: Vec<String>,
}

/// The model with new tokens; `start` is the adapter whose weights a run begins with.
pub fn with_new_tokens(
    model: ModelFolder,
    tokens: &[NewToken],
    start: Option<&Path>,
) -> Result<Grown> {
    let unchanged = |model| Grown {
        model,
        whole: Vec::new(),
    };
    if tokens.is_empty() {
        return Ok(unchanged(model));
    }
    let small_files = qoft::copy_small_files(&model)?;
    let result = add_tokens(small_files.path(), tokens)?;
    if !result.known.is_empty() {
        errln!(
            "tokens that the vocabulary has already, or that are given twice, are left out: {}",
            shown(&result.known)
        );
    }
    if result.added.is_empty() {
        return Ok(unchanged(model));
    }
    if let Some(start) = start {
        bail!(
            "--start-from {}: its weights have no rows for new tokens ({}); `qoft merge` makes a model of the \
             adapter, which can get them",
            start.display(),
            shown(&result.added)
        );
    }
    let spec = model.spec()?;
    let (before, names) = (spec.config().vocab_size, *spec.names());
    let rows = match result.rows > before {
        true => format!(
            "embedding and output head grow from {before} to {} rows",
            result.rows
        ),
        false => format!(
            "{} of the {before} rows of the embedding are used",
            result.rows
        ),
    };
    errln!(
        "{} new tokens: {}; {rows}, and both train whole",
        result.added.len(),
        shown(&result.added)
    );
    Ok(Grown {
        model: qoft::with_tokens(&model, result.rows, small_files)?,
        whole: [names.tokens, names.head].map(str::to_owned).to_vec(),
    })
}

/// The first of some texts.
fn shown(texts: &[String]) -> String {
    const SHOWN: usize = 5;
    let first: Vec<String> = texts.iter().take(SHOWN).map(|t| format!("{t:?}")).collect();
    let more = match texts.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", first.join(", "))
}

/// The configuration of an adapter with more modules that train whole.
pub fn with_whole_modules(
    config: Arc<dyn AdapterConfig>,
    whole: Vec<String>,
    families: &Families,
) -> Result<Arc<dyn AdapterConfig>> {
    if whole.is_empty() {
        return Ok(config);
    }
    let mut json = config.to_json();
    let given = json[MODULES].as_array().cloned().unwrap_or_default();
    let has = |name: &str| {
        let mut given = given.iter().filter_map(Value::as_str);
        given.any(|given| given == name || given.ends_with(&format!(".{name}")))
    };
    let new = whole.iter().filter(|name| !has(name));
    let new = new.map(|name| name.as_str().into());
    json[MODULES] = given.iter().cloned().chain(new).collect();
    let name = "adapter configuration";
    let family = json["peft_type"].as_str().unwrap_or_default().to_owned();
    Ok(families.find(&family, name)?.read(json, name)?)
}
