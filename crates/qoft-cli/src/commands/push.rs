//! `qoft push`: a folder becomes a commit on the Hugging Face Hub.

use anyhow::Result;

use crate::args::PushArgs;

/// Pushes the folder.
#[cfg(feature = "hub")]
pub fn run(args: &PushArgs) -> Result<()> {
    use anyhow::{bail, ensure};
    use qoft_hub::{Hub, HubName};
    use serde_json::json;

    use crate::print::outln;
    use crate::progress::Transfers;

    let Some(name) = HubName::parse(&args.name).filter(|name| name.path.is_none()) else {
        bail!("{}: expected OWNER/NAME or OWNER/NAME@BRANCH", args.name);
    };
    let is_one = ["adapter_config.json", "config.json"].map(|file| args.folder.join(file).exists());
    ensure!(
        is_one.contains(&true),
        "{}: neither an adapter nor a model: no adapter_config.json and no config.json in it",
        args.folder.display()
    );
    let (private, message) = (args.private, &args.message);
    let pushed =
        Hub::from_env()?.push(&args.folder, &name, private, message, &mut Transfers::new())?;
    if args.json {
        outln!("{}", json!({"url": pushed.url, "files": pushed.files}));
    } else {
        outln!("{} files pushed: {}", pushed.files, pushed.url);
    }
    Ok(())
}

/// Says what this build lacks.
#[cfg(not(feature = "hub"))]
pub fn run(args: &PushArgs) -> Result<()> {
    anyhow::bail!(
        "{}: this build cannot reach the Hub; build it with the Cargo feature `hub`, or use `hf upload`",
        args.name
    )
}
