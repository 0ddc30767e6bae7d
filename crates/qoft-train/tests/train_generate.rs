//! Generation of text with a loaded model.

use burn::tensor::{Tensor, TensorData};
use qoft_bnb as _;
use qoft_core::{Schemes, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_train::tokenizer::Tokenizer;
use qoft_train::{GenerateOptions, generate};

#[test]
fn generation_with_a_cache_follows_the_likeliest_tokens() {
    let folder = qoft_fixtures::path("models/llama_nf4");
    let folder = ModelFolder::open(&folder, &Architectures::linked().unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let device = default_device().unwrap();
    let model = CausalLm::load(&folder, &schemes, &device, &mut |_, _| {}).unwrap();
    // The vocabularies differ; ids without a token have no text.
    let tokenizer = Tokenizer::from_dir(&qoft_fixtures::path("tokenizer")).unwrap();
    let mut options = GenerateOptions::default();
    options.max_new_tokens = 12;
    let prompt = [5, 6, 7];
    let mut heard = String::new();
    let generated = generate(
        &model,
        &tokenizer,
        &prompt,
        &options,
        &device,
        &mut |text| heard.push_str(text),
    )
    .unwrap();
    assert_eq!(heard, generated.text);
    assert!(!generated.ids.is_empty() && generated.ids.len() <= 12);

    let mut ids = prompt.to_vec();
    for id in &generated.ids {
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let data = TensorData::new(values, [1, ids.len()]);
        let logits = model.last_logits(Tensor::from_data(data, &device), None);
        let best = logits.argmax(1).into_scalar::<i32>();
        assert_eq!(best, *id as i32);
        ids.push(*id);
    }
}
