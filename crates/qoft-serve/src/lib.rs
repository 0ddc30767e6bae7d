//! An OpenAI-compatible HTTP server over one packed model and many adapters.
