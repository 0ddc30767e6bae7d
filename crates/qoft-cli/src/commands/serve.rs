//! `qoft serve`.

use std::path::Path;

use anyhow::Result;
use qoft::Registries;
use qoft::peft::AdapterFolder;
use qoft::train::GenerationConfig;
use qoft_serve::{NamedAdapter, Served, serve};

use crate::args::{ModelArgs, ServeArgs, with_chat_template};
use crate::print::{errln, warnln};
use crate::stop::{self, Graceful};
use crate::{files, vocabulary};

/// Serves a model until it is asked to stop.
pub fn run(args: &ServeArgs, registries: &Registries) -> Result<()> {
    let device = files::device(args.model.device.as_deref())?;
    let named = args.adapter.iter();
    let paths: Vec<&Path> = named.map(|named| named.adapter.folder.as_path()).collect();
    let folder = files::open(registries, &args.model.model)?;
    let folder = vocabulary::with_tokens_of(folder, &paths)?;
    let tokenizer = files::tokenizer(&folder)?;
    let tokenizer = with_chat_template(tokenizer, args.chat_template.as_deref())?;
    let generation = GenerationConfig::read(folder.checkpoint().dir())?;
    let ignored: Vec<&str> = generation.not_implemented().collect();
    if !ignored.is_empty() {
        warnln!(
            "generation_config.json: not implemented and ignored: {}",
            ignored.join(", ")
        );
    }
    let (scheme, load) = (args.model.quantize.as_deref(), &args.model.load);
    let adapters = args.adapter.iter().map(|named| {
        let one = std::slice::from_ref(&named.adapter);
        files::warn_of_others(registries, &folder, scheme, load, one);
        // Tells of adapters below that are missing.
        files::adapters(registries, one)?;
        let chat_templates = match args.chat_template {
            Some(_) => None,
            None => vocabulary::templates_of(&folder, &named.adapter.folder)?,
        };
        Ok(NamedAdapter {
            name: named.name.clone(),
            chat_templates,
            folder: AdapterFolder::open(&named.adapter.folder, &registries.families)?,
            strength: named.adapter.strength,
        })
    });
    let adapters = adapters.collect::<Result<Vec<_>>>()?;
    let plain = ModelArgs {
        base: args.model.clone(),
        adapter: Vec::new(),
    };
    let model = files::adapted_model(registries, folder, &plain)?;
    let mut served = Served::new(model, tokenizer, &device);
    served.generation = generation;
    served.adapters = adapters;
    let options = args.options();
    let names = [options.model_name.clone()];
    let names = names
        .into_iter()
        .chain(args.adapter.iter().map(|named| named.name.clone()));
    let names: Vec<String> = names.collect();
    let _graceful = Graceful::begin();
    serve(served, options, stop::requested(), &mut |address| {
        errln!(
            "serving {} at http://{address}/v1; a page to chat is at http://{address}/",
            names.join(", ")
        );
    })?;
    errln!("stopped");
    Ok(())
}
