//! `qoft completions` and `qoft man`: what shells and `man` know of the options.

use anyhow::{Context, Result};
use qoft::core::write_file;

use crate::args::{CompletionsArgs, ManArgs, program};
use crate::print::{self, outln};

/// Prints a script that completes commands and options.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program(), "qoft", &mut script);
    print::text(&String::from_utf8(script).context("completions")?);
    Ok(())
}

/// Writes a page for the program and for each command.
pub fn man(args: &ManArgs) -> Result<()> {
    let folder = &args.folder;
    let at = || folder.display().to_string();
    std::fs::create_dir_all(folder).with_context(at)?;
    let mut written = 0;
    let mut commands = vec![("qoft".to_owned(), program())];
    while let Some((typed, command)) = commands.pop() {
        for inner in command
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
        {
            commands.push((format!("{typed} {}", inner.get_name()), inner.clone()));
        }
        let name = typed.replace(' ', "-");
        let mut page = Vec::new();
        let command = command.display_name(name.clone()).bin_name(typed);
        clap_mangen::Man::new(command)
            .render(&mut page)
            .with_context(at)?;
        let path = folder.join(format!("{name}.1"));
        write_file(&path, &page)?;
        written += 1;
    }
    outln!("{written} pages in {}", at());
    Ok(())
}
