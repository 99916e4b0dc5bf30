"""The recipe of the embedded reasoner: generated tasks, tokenizer, model, training, conversion, evaluation."""
