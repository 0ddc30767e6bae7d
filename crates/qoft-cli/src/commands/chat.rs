//! `qoft chat`.

mod commands;
mod input;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use qoft::core::adapters;
use qoft::models::CausalLm;
use qoft::models::ModelFolder;
use qoft::peft::attach_folder;
use qoft::train::chat::Message;
use qoft::train::tokenizer::Tokenizer;
use qoft::train::{GenerateOptions, WriteRequest, Writer, model_facts};
use qoft::{Registries, ScaledAdapter};

use self::commands::Said;
use self::input::Input;
use super::generate::{chat_ids, message, of_user};
use crate::args::{AdapterArg, BaseArgs, ChatArgs, with_chat_template};
use crate::print::{self, errln, warnln};
use crate::stop::Interruptible;
use crate::{files, vocabulary};

/// Talks with a model until the input ends.
pub fn run(args: &ChatArgs, registries: &Registries) -> Result<()> {
    let device = files::device(args.model.device.as_deref())?;
    let folder = vocabulary::open(registries, &args.model.model, &args.model.adapter)?;
    let tokenizer = files::tokenizer(&folder)?;
    let tokenizer = with_chat_template(tokenizer, args.chat_template.as_deref())?;
    // Before the model is loaded.
    tokenizer.chat_template()?;
    let mut options = args.choice.options(folder.checkpoint().dir())?;
    options.seed = args.seed;
    let base = Base {
        folder: folder.clone(),
        args: &args.model,
        has_template: args.chat_template.is_some(),
    };
    let model = files::adapted_model(registries, folder, &args.model)?.valid();
    let adapters = args.model.adapter.iter().enumerate();
    let adapters = adapters.map(|(index, adapter)| (files::slot(index), adapter.clone()));
    let mut talk = Talk {
        model,
        tokenizer,
        device,
        options,
        registries,
        base,
        adapters: adapters.collect(),
        system: args.system.clone(),
        messages: Vec::new(),
    };
    let mut input = Input::new();
    if input.is_terminal() {
        errln!("/help lists what can be done beside talking; Ctrl-D ends");
    }
    while let Some(line) = input.next()? {
        let said = match Said::read(&line) {
            Some(said) => said,
            None => continue,
        };
        match talk.hear(said) {
            Ok(true) => {}
            Ok(false) => break,
            // A mistake in one line does not end the conversation.
            Err(error) => print::message(
                print::Kind::Error,
                format_args!("{}", crate::messages::with_causes(&error)),
            ),
        }
    }
    Ok(())
}

/// The model as it was before adapters.
struct Base<'a> {
    folder: ModelFolder,
    args: &'a BaseArgs,
    /// Whether the chat template was given.
    has_template: bool,
}

impl Base<'_> {
    /// Warns of an adapter that was trained on something else than what is here.
    fn warn_of_another(&self, registries: &Registries, adapter: &AdapterArg) -> Result<()> {
        let (scheme, load) = (self.args.quantize.as_deref(), &self.args.load);
        let adapters = std::slice::from_ref(adapter);
        files::warn_of_others(registries, &self.folder, scheme, load, adapters);
        if self.has_template {
            return Ok(());
        }
        if vocabulary::templates_of(&self.folder, &adapter.folder)?.is_some() {
            warnln!(
                "{} was trained with another chat template than that of this conversation; `qoft chat \
                 --adapter {0}` takes it",
                adapter.folder.display()
            );
        }
        Ok(())
    }
}

/// A conversation with a model.
struct Talk<'a> {
    model: CausalLm,
    tokenizer: Tokenizer,
    device: Device,
    options: GenerateOptions,
    registries: &'a Registries,
    base: Base<'a>,
    /// The adapters that are on the model, with their names there.
    adapters: Vec<(String, AdapterArg)>,
    system: Option<String>,
    messages: Vec<Message>,
}

impl Talk<'_> {
    /// Does what was said; whether the conversation goes on.
    fn hear(&mut self, said: Said) -> Result<bool> {
        match said {
            Said::Text(text) => self.answer(&text)?,
            Said::Help => errln!("{}", commands::HELP),
            Said::Exit => return Ok(false),
            Said::Reset => {
                self.messages.clear();
                errln!("a new conversation");
            }
            Said::System(None) => errln!("system: {}", self.system.as_deref().unwrap_or("none")),
            Said::System(Some(text)) => {
                self.system = (text != "none").then_some(text);
                self.messages.clear();
                errln!("a new conversation");
            }
            Said::Adapter(None) => self.tell_adapters(),
            Said::Adapter(Some(wanted)) => {
                self.choose(&wanted)?;
                self.tell_adapters();
            }
            Said::Save(path) => self.save(&path)?,
            Said::Unknown(error) => print::message(print::Kind::Error, format_args!("{error}")),
        }
        Ok(true)
    }

    /// All messages so far, that of the system first.
    fn all(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| message("system", text));
        system.chain(self.messages.iter().cloned()).collect()
    }

    /// Answers what the user says. An answer that is stopped stays as far as it came.
    fn answer(&mut self, text: &str) -> Result<()> {
        self.messages.push(of_user(text));
        let answered = self.write();
        match answered {
            Ok(answer) => {
                self.messages.push(message("assistant", answer.trim_end()));
                Ok(())
            }
            Err(error) => {
                // It can be said once more, in another way.
                self.messages.pop();
                Err(error)
            }
        }
    }

    fn write(&self) -> Result<String> {
        let prompt = chat_ids(&self.tokenizer, &self.all())?;
        let mut writer = Writer::new(&self.tokenizer, &self.device);
        let request = WriteRequest::new(prompt, self.options.clone());
        writer.join(&self.model, request)?;
        let interruptible = Interruptible::begin();
        let (mut answer, mut result) = (String::new(), Ok(()));
        while !writer.is_empty() && result.is_ok() && !interruptible.was_interrupted() {
            writer.step(&self.model, &mut |_, written| match written {
                Err(error) => result = Err(error),
                Ok(written) => {
                    print::text(&written.text);
                    answer += &written.text;
                }
            });
        }
        print::text("\n");
        result?;
        Ok(answer)
    }

    /// Makes exactly these adapters active.
    fn choose(&mut self, wanted: &[AdapterArg]) -> Result<()> {
        let before = adapters::active(&self.model);
        let chosen = self.try_to_choose(wanted);
        if chosen.is_err() {
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            adapters::activate(&mut self.model, &before)?;
        }
        chosen
    }

    fn try_to_choose(&mut self, wanted: &[AdapterArg]) -> Result<()> {
        let mut slots = Vec::new();
        for adapter in wanted {
            slots.push(match self.slot_of(adapter) {
                Some(slot) => slot,
                None => self.attach(adapter)?,
            });
        }
        let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
        Ok(adapters::activate(&mut self.model, &slots)?)
    }

    fn tell_adapters(&self) {
        let active = adapters::active(&self.model);
        if self.adapters.is_empty() {
            errln!("no adapters");
        }
        for (slot, adapter) in &self.adapters {
            let mark = if active.contains(slot) { "*" } else { " " };
            let strength = match adapter.strength {
                1.0 => String::new(),
                strength => format!("={strength}"),
            };
            errln!("{mark} {}{strength}", adapter.folder.display());
        }
    }

    /// The name on the model of an adapter that is there already; the name of its folder is enough.
    fn slot_of(&self, wanted: &AdapterArg) -> Option<String> {
        let is_it = |known: &AdapterArg| {
            let same = known.folder == wanted.folder
                || known.folder.file_name() == Some(wanted.folder.as_os_str());
            same && known.strength == wanted.strength
        };
        let found = self.adapters.iter().find(|(_, known)| is_it(known));
        found.map(|(slot, _)| slot.clone())
    }

    /// Puts one more adapter on the model.
    fn attach(&mut self, adapter: &AdapterArg) -> Result<String> {
        // Of one that is there, with another strength.
        let named = self
            .adapters
            .iter()
            .find(|(_, known)| known.folder.file_name() == Some(adapter.folder.as_os_str()));
        let adapter = AdapterArg {
            folder: named
                .map_or(&adapter.folder, |(_, known)| &known.folder)
                .clone(),
            ..adapter.clone()
        };
        let opened = files::adapters(self.registries, std::slice::from_ref(&adapter))?;
        self.base.warn_of_another(self.registries, &adapter)?;
        let slot = files::slot(self.adapters.len());
        let spec = self.model.spec().clone();
        for ScaledAdapter {
            folder, strength, ..
        } in &opened
        {
            let facts = model_facts(&spec);
            // Those that are active may have the same module in whole.
            adapters::disable_all(&mut self.model);
            attach_folder(
                &mut self.model,
                folder,
                *strength,
                facts,
                &slot,
                &self.device,
            )?;
        }
        self.adapters.push((slot.clone(), adapter));
        Ok(slot)
    }

    /// Writes the conversation as a row of data.
    fn save(&self, path: &Path) -> Result<()> {
        ensure!(!path.exists(), "{} exists already", path.display());
        let row = serde_json::json!({"messages": self.all()});
        qoft::core::write_file(path, format!("{row}\n").as_bytes())
            .with_context(|| path.display().to_string())?;
        errln!("saved as {}", path.display());
        Ok(())
    }
}

/// The file of what was said before.
fn history() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || Some(Path::new(&folder("HOME")?).join(".local/state"));
    let state = folder("XDG_STATE_HOME").map(PathBuf::from).or_else(home)?;
    Some(state.join("qoft").join("chat-history"))
}
