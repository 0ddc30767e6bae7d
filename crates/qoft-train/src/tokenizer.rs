//! The tokenizer of a model folder: text to token ids and back.

mod check;
mod classes;
mod files;
mod new_tokens;
mod start;
mod stream;
mod templates;
mod tokens;
mod vocabulary;

use std::path::{Path, PathBuf};

use crate::chat::{ChatError, ChatTemplate, Variables};
use crate::isolated::isolated;
use files::Files;
use tokens::Tokens;

pub use new_tokens::{NewToken, TokensAdded, add_tokens};
pub use stream::TextStream;
pub use templates::ChatTemplates;

/// The file with the vocabulary and the rules.
const VOCABULARY: &str = "tokenizer.json";

/// The files that say what the tokens of a text are.
const FILES: [&str; 5] = [
    VOCABULARY,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
];

/// Why text could not be turned into token ids or back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file of the folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the folder does not hold what its name promises.
    #[error("{} is broken: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder has no `tokenizer.json`.
    #[error(
        "text needs a tokenizer, but {} has no tokenizer.json; rows with input_ids need none",
        folder.display()
    )]
    NoVocabulary {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has no chat template.
    #[error(
        "messages need a chat template, but {} has neither chat_template.jinja nor a \
         chat_template in tokenizer_config.json; the option chat-template names one: a file, or {}",
        folder.display(),
        crate::chat::builtin_names().collect::<Vec<_>>().join(", ")
    )]
    NoChatTemplate {
        /// The folder.
        folder: PathBuf,
    },
    /// The chat template does not compile.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer refused a text or ids.
    #[error("{} fails on this text: {reason}", path.display())]
    Failed {
        /// The file with the rules of the tokenizer.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// Token ids with the place of each token in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each id the byte offsets of its first byte and behind its last one. They are equal for
    /// tokens that the tokenizer added, and for white space that it does not count.
    pub offsets: Vec<(usize, usize)>,
}

/// The tokenizer of a model folder, its special tokens and its chat template.
///
/// A folder without `tokenizer.json` gives a tokenizer too, since rows of token ids need no
/// vocabulary; only methods that deal with text fail then.
#[derive(Debug)]
pub struct Tokenizer {
    folder: PathBuf,
    vocabulary: Option<tokenizers::Tokenizer>,
    special_tokens: Variables,
    chat_templates: ChatTemplates,
    /// The ids that end a text according to the model's configuration.
    model_eos_ids: Vec<u32>,
}

impl Tokenizer {
    /// Reads the tokenizer of the model folder `folder`.
    ///
    /// Used are `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`,
    /// `added_tokens.json`, `chat_template.jinja`, the folder `additional_chat_templates`,
    /// `generation_config.json` and `config.json`; each may be missing.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::Io`] and [`TokenizerError::Broken`] for files that are there but cannot
    /// be used.
    pub fn from_dir(folder: &Path) -> Result<Self, TokenizerError> {
        let files = Files::read(folder)?;
        let mut tokens = Tokens::read(&files)?;
        Ok(Self {
            vocabulary: vocabulary::read_vocabulary(
                &folder.join(VOCABULARY),
                &mut tokens,
                &files.config.value,
                &files.model.value,
            )?,
            special_tokens: tokens.variables(),
            chat_templates: templates::chat_templates(folder, &files.config)?,
            model_eos_ids: files::model_eos_ids(folder, &files.model)?,
            folder: folder.to_owned(),
        })
    }

    /// The same with another chat template: the text of one.
    #[must_use]
    pub fn with_chat_template(self, source: String) -> Self {
        Self {
            chat_templates: ChatTemplates::One(source),
            ..self
        }
    }

    /// The texts of the chat templates.
    #[must_use]
    pub fn chat_templates(&self) -> &ChatTemplates {
        &self.chat_templates
    }

    /// Bytes that are others where the same text becomes other tokens.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::Io`] for a file that was there before.
    pub(crate) fn identity(&self) -> Result<Vec<u8>, TokenizerError> {
        let mut bytes = format!("{:?}{:?}", self.chat_templates, self.model_eos_ids).into_bytes();
        // What such a template writes is true for a day.
        if bytes.windows(12).any(|part| part == b"strftime_now") {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let days = now.map_or(0, |now| now.as_secs() / 86_400);
            bytes.extend(days.to_le_bytes());
        }
        for name in FILES {
            let text = files::read_text(&self.folder.join(name))?.unwrap_or_default();
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.into_bytes());
        }
        Ok(bytes)
    }

    /// Whether the folder has a `tokenizer.json`, so that text can be used.
    #[must_use]
    pub fn has_vocabulary(&self) -> bool {
        self.vocabulary.is_some()
    }

    /// The token ids of `text`. With `add_special_tokens`, tokens such as the one for the
    /// beginning of a text are added as `tokenizer.json` asks for.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::NoVocabulary`]; [`TokenizerError::Failed`] when the tokenizer refuses
    /// the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let vocabulary = self.vocabulary()?;
        let encoding = self.run(|| vocabulary.encode_fast(text, add_special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode`], with the place of each token in `text`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_with_offsets(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Encoded, TokenizerError> {
        let vocabulary = self.vocabulary()?;
        let encoding = self.run(|| vocabulary.encode(text, add_special_tokens))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        })
    }

    /// The text of `ids`, without special tokens when `skip_special_tokens` is set. Ids that the
    /// vocabulary lacks are left out.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::NoVocabulary`]; [`TokenizerError::Failed`] when the decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        let vocabulary = self.vocabulary()?;
        self.run(|| vocabulary.decode(ids, skip_special_tokens))
    }

    /// A decoder for ids that come one by one. It leaves special tokens out.
    #[must_use]
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// The id of the token that begins a text.
    #[must_use]
    pub fn bos_id(&self) -> Option<u32> {
        self.special_id("bos_token")
    }

    /// The id of the token that ends a text: the tokenizer's, else the first one that the model's
    /// configuration names.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.special_id("eos_token")
            .or_else(|| self.model_eos_ids.first().copied())
    }

    /// The text of the token that ends a text, if the tokenizer names one.
    #[must_use]
    pub fn eos_token(&self) -> Option<&str> {
        self.special_tokens.get("eos_token")?.as_str()
    }

    /// The id of the token that fills up short rows.
    #[must_use]
    pub fn pad_id(&self) -> Option<u32> {
        self.special_id("pad_token")
    }

    /// The ids that end a generated text: those of `generation_config.json` (else of
    /// `config.json`), and [`Tokenizer::eos_id`], which training on text teaches as the end.
    #[must_use]
    pub fn stop_ids(&self) -> Vec<u32> {
        let mut ids = self.model_eos_ids.clone();
        ids.extend(self.eos_id().filter(|id| !self.model_eos_ids.contains(id)));
        ids
    }

    /// The chat templates of the folder: `chat_template.jinja` and the files in
    /// `additional_chat_templates`, else those in `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::NoVocabulary`]; [`TokenizerError::NoChatTemplate`]; [`TokenizerError::Chat`] when
    /// the only one does not parse.
    pub fn chat_template(&self) -> Result<ChatTemplate, TokenizerError> {
        self.template_of(&self.chat_templates)
    }

    /// The same for templates of another folder.
    ///
    /// # Errors
    ///
    /// As [`Self::chat_template`].
    pub fn template_of(&self, templates: &ChatTemplates) -> Result<ChatTemplate, TokenizerError> {
        // Without it a template would be of no use.
        self.vocabulary()?;
        match templates {
            ChatTemplates::None => Err(TokenizerError::NoChatTemplate {
                folder: self.folder.clone(),
            }),
            ChatTemplates::One(source) => Ok(ChatTemplate::new(source, &self.special_tokens)?),
            ChatTemplates::Several(templates) => {
                Ok(ChatTemplate::named(templates.clone(), &self.special_tokens))
            }
        }
    }

    /// What the crate `tokenizers` answers, which may panic.
    fn run<T>(&self, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
        let failed = |reason: String| TokenizerError::Failed {
            path: self.folder.join(VOCABULARY),
            reason,
        };
        let result = isolated(work).map_err(failed)?;
        result.map_err(|error| failed(error.to_string()))
    }

    fn vocabulary(&self) -> Result<&tokenizers::Tokenizer, TokenizerError> {
        self.vocabulary
            .as_ref()
            .ok_or_else(|| TokenizerError::NoVocabulary {
                folder: self.folder.clone(),
            })
    }

    fn special_id(&self, name: &str) -> Option<u32> {
        let token = self.special_tokens.get(name)?.as_str()?;
        self.vocabulary.as_ref()?.token_to_id(token)
    }
}
