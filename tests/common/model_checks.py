"""What every model of the package must pass. A test class of one model derives from `ModelChecks`:

    class TestSTiCAModel(ModelChecks):
        model_class = STiCAModel
        make_config = staticmethod(tiny_stica.make_config)
        def make_inputs(self, batch): ...

None of these checks skips itself: what a kind of model cannot do is a class attribute of its test class, with
a reason.
"""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from videossl_hf.errors import CheckpointError

SENTINEL = -12345


def as_double(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value.double() if is_float(value) else value for name, value in inputs.items()}


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def tensors(output: Any) -> dict[str, Tensor]:
    """All tensors of an output, nested ones by position."""
    found: dict[str, Tensor] = {}
    for name, value in output.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, (tuple, list)):
            found.update(
                {f"{name}.{place}": item for place, item in enumerate(value) if isinstance(item, Tensor)}
            )
    return found


def perturb(model: nn.Module) -> None:
    """Give every parameter and buffer a value of its own, so that nothing passes by being the default."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand(tensor.shape, generator=generator))
            else:
                tensor.add_(3)


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    largest = reference.abs().max().clamp_min(1e-12)
    return float((ours.detach().double() - reference.detach().double()).abs().max() / largest)


class ModelChecks:
    """The checks; each test is one behaviour."""

    model_class: ClassVar[Any]
    is_feature_model: ClassVar[bool] = (
        True  # its eval forward treats each sample by itself; exports and compiles
    )
    has_hidden_states: ClassVar[bool] = True
    has_attentions: ClassVar[bool] = True
    keys_new_without_head: ClassVar[str | None] = (
        None  # head models: the head that a pre-trained folder lacks
    )

    def make_config(self) -> Any:
        raise NotImplementedError

    def make_inputs(self, batch: int) -> dict[str, Any]:
        """Arguments of forward for `batch` samples; each sample's are independent of the batch's size."""
        raise NotImplementedError

    @pytest.fixture
    def config(self) -> Any:
        return self.make_config()

    @pytest.fixture
    def model(self, config: Any) -> Any:
        torch.manual_seed(0)
        return self.model_class(copy.deepcopy(config)).eval()

    @torch.no_grad()
    def run(self, model: Any, batch: int = 2, **kwargs: Any) -> Any:
        return model(**self.make_inputs(batch), **kwargs)

    def with_attention(self, model: Any, implementation: str) -> Any:
        other = self.model_class(copy.deepcopy(model.config)).eval()
        other.load_state_dict(model.state_dict())
        other.set_attn_implementation(implementation)
        return other

    # Saving and loading

    def test_loads_what_was_saved_bitwise(self, model: Any, tmp_path: Path) -> None:
        perturb(model)
        model.save_pretrained(tmp_path)
        loaded, info = self.model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values())
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name]), name
        expected = tensors(self.run(model))
        found = tensors(self.run(loaded))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)

    def test_saves_safetensors_json_and_code_alone_and_the_same_bytes_each_time(
        self, model: Any, tmp_path: Path
    ) -> None:
        model.save_pretrained(tmp_path / "a")
        model.save_pretrained(tmp_path / "b")
        names = {path.name for path in (tmp_path / "a").iterdir()}
        assert {"config.json", "model.safetensors"} <= names
        assert {Path(name).suffix for name in names} == {".json", ".safetensors", ".py"}
        for name in names:
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name

    def test_loads_a_sharded_save(self, model: Any, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        loaded = self.model_class.from_pretrained(tmp_path)
        assert all(torch.equal(t, loaded.state_dict()[name]) for name, t in model.state_dict().items())

    def test_saves_the_state_that_is_passed(self, model: Any, tmp_path: Path) -> None:
        state = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
        model.save_pretrained(tmp_path, state_dict=state)
        assert not any(
            tensor.any() for tensor in self.model_class.from_pretrained(tmp_path).state_dict().values()
        )

    def test_only_the_main_process_writes(self, model: Any, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path / "x", is_main_process=False)
        assert not (tmp_path / "x").exists() or not list((tmp_path / "x").iterdir())

    def test_configuration_survives_a_round_trip(self, config: Any, tmp_path: Path) -> None:
        config.save_pretrained(tmp_path)
        loaded = type(config).from_pretrained(tmp_path)
        assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
        assert loaded.to_dict() == type(config).from_dict(loaded.to_dict()).to_dict()

    def _tampered(self, model: Any, folder: Path, change: Any) -> Path:
        model.save_pretrained(folder)
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    def _backbone_key(self, model: Any) -> str:
        prefix = f"{model.base_model_prefix}."
        names = [name for name, _ in model.named_parameters()]
        return next((name for name in names if name.startswith(prefix)), names[0])

    def test_refuses_a_checkpoint_without_a_weight_of_the_backbone(self, model: Any, tmp_path: Path) -> None:
        key = self._backbone_key(model)
        folder = self._tampered(model, tmp_path, lambda state: state.pop(key))
        with pytest.raises(CheckpointError, match=key.split(".")[-1]):
            self.model_class.from_pretrained(folder)

    def test_refuses_a_checkpoint_with_a_weight_that_its_parts_do_not_know(
        self, model: Any, tmp_path: Path
    ) -> None:
        key = self._backbone_key(model).rsplit(".", 1)[0] + ".surplus"
        folder = self._tampered(model, tmp_path, lambda state: state.update({key: torch.zeros(2)}))
        with pytest.raises(CheckpointError, match="surplus"):
            self.model_class.from_pretrained(folder)

    def test_refuses_other_shapes_unless_asked(self, model: Any, tmp_path: Path) -> None:
        key = self._backbone_key(model)
        folder = self._tampered(model, tmp_path, lambda state: state.update({key: torch.zeros(1, 2, 3)}))
        with pytest.raises(CheckpointError, match="ignore_mismatched_sizes") as error:
            self.model_class.from_pretrained(folder)
        assert key in str(error.value)
        loaded = self.model_class.from_pretrained(folder, ignore_mismatched_sizes=True)
        assert all(tensor.isfinite().all() for tensor in loaded.state_dict().values())

    def test_refuses_a_truncated_file(self, model: Any, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        data = file.read_bytes()
        for length in (0, 5, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:length])
            with pytest.raises(CheckpointError, match="damaged"):
                self.model_class.from_pretrained(tmp_path)

    # Construction

    def test_initialises_every_weight_of_a_model_built_on_meta(self, config: Any) -> None:
        with torch.device("meta"):
            model = self.model_class(copy.deepcopy(config))
        model.to_empty(device="cpu")
        everything = dict([*model.named_parameters(), *model.named_buffers()])
        with torch.no_grad():
            for tensor in everything.values():
                tensor.fill_(torch.nan if tensor.is_floating_point() else SENTINEL)
        for module in model.modules():
            module._is_hf_initialized = False
        model.initialize_weights()
        untouched = [
            name
            for name, tensor in everything.items()
            if (tensor.isnan().any() if tensor.is_floating_point() else (tensor == SENTINEL).any())
        ]
        assert not untouched

    def test_holds_every_tensor_as_parameter_or_buffer(self, model: Any) -> None:
        loose = [
            f"{name}.{attribute}"
            for name, module in model.named_modules()
            for attribute, value in vars(module).items()
            if isinstance(value, Tensor)
        ]
        assert not loose

    def test_two_seeds_give_two_models_and_one_seed_gives_one(self, config: Any) -> None:
        def build(seed: int) -> dict[str, Tensor]:
            torch.manual_seed(seed)
            return self.model_class(copy.deepcopy(config)).state_dict()

        first, again, other = build(1), build(1), build(2)
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_building_a_model_leaves_its_configuration_alone(self, config: Any) -> None:
        before = config.to_dict()
        self.model_class(config)
        assert config.to_dict() == before

    # Forward

    def test_forward_begins_with_the_main_input(self) -> None:
        names = list(inspect.signature(self.model_class.forward).parameters)
        assert names[:2] == ["self", self.model_class.main_input_name]

    def test_eval_forward_is_deterministic(self, model: Any) -> None:
        first, second = tensors(self.run(model)), tensors(self.run(model))
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_tuple_and_dict_outputs_agree(self, model: Any) -> None:
        as_dict = self.run(model)
        as_tuple = self.run(model, return_dict=False)
        assert isinstance(as_tuple, tuple)
        values = as_dict.to_tuple()
        assert len(values) == len(as_tuple)
        for expected, found in zip(values, as_tuple, strict=True):
            if isinstance(expected, Tensor):
                assert torch.equal(expected, found)

    def test_hidden_states_come_on_request(self, model: Any) -> None:
        if not self.has_hidden_states:
            assert "hidden_states" not in self.run(model)
            return
        assert self.run(model).hidden_states is None
        states = self.run(model, output_hidden_states=True).hidden_states
        assert len(states) > 1
        assert all(state.shape[0] == 2 for state in states)

    def test_attentions_come_on_request(self, model: Any) -> None:
        if not self.has_attentions:
            assert "attentions" not in self.run(model)
            return
        attentions = self.run(self.with_attention(model, "eager"), output_attentions=True).attentions
        assert len(attentions) >= 1
        for weights in attentions:
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))

    def test_sdpa_agrees_with_eager(self, model: Any) -> None:
        perturb(model)
        eager = tensors(self.run(self.with_attention(model, "eager")))
        sdpa = tensors(self.run(self.with_attention(model, "sdpa")))
        for name, expected in eager.items():
            if expected.is_floating_point():
                assert relative_difference(sdpa[name], expected) <= 1e-5, name

    def test_attention_implementation_can_be_chosen_and_unknown_ones_are_refused(
        self, model: Any, tmp_path: Path
    ) -> None:
        model.save_pretrained(tmp_path)
        for name in ("eager", "sdpa"):
            loaded = self.model_class.from_pretrained(tmp_path, attn_implementation=name)
            assert loaded.config._attn_implementation == name
        with pytest.raises(ValueError, match="nonsense"):
            model.set_attn_implementation("nonsense")

    def test_a_sample_does_not_depend_on_its_batch(self, model: Any) -> None:
        if not self.is_feature_model:
            return
        together = tensors(self.run(model, batch=4))
        single = tensors(self.run(model, batch=1))
        for name, expected in single.items():
            if expected.ndim:
                assert relative_difference(together[name][:1], expected) <= 1e-5, name

    @torch.no_grad()
    def test_bfloat16_agrees_with_float32(self, model: Any) -> None:
        expected = tensors(self.run(model))
        found = tensors(self.run(copy.deepcopy(model).to(torch.bfloat16)))
        for name, reference in expected.items():
            if not reference.is_floating_point() or name.startswith("accuracy"):
                continue
            assert found[name].isfinite().all(), name
            if reference.numel() > 1:
                ours = found[name].double().flatten()
                assert torch.cosine_similarity(ours, reference.double().flatten(), 0) >= 0.999, name

    # Training

    def _gradients(self, model: Any) -> dict[str, Tensor]:
        torch.manual_seed(7)
        model.zero_grad()
        inputs = self.training_inputs(4)
        if model.dtype == torch.float64:
            inputs = as_double(inputs)
        self.loss(model(**inputs)).backward()
        return {
            name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    def training_inputs(self, batch: int) -> dict[str, Any]:
        """Arguments that give a loss; the same as `make_inputs` unless labels are needed."""
        return self.make_inputs(batch)

    def loss(self, output: Any) -> Tensor:
        """The loss, or of a feature model something of every output."""
        if output.get("loss") is not None:
            return output.loss
        weights = torch.Generator().manual_seed(3)
        return sum(
            (tensor * torch.randn(tensor.shape, generator=weights)).mean()
            for tensor in tensors(output).values()
            if tensor.is_floating_point()
        )

    def test_a_training_step_reaches_every_parameter(self, model: Any) -> None:
        gradients = self._gradients(model.train())
        without = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
        assert not [name for name in without if name not in self.parameters_without_gradient(model)]
        assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)

    def parameters_without_gradient(self, model: Any) -> set[str]:
        """Parameters whose gradient is zero by construction, with the reason beside them."""
        return set()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gradient_checkpointing_changes_neither_gradients_nor_buffers(
        self, model: Any, dtype: torch.dtype
    ) -> None:
        plain, checkpointed = (copy.deepcopy(model).to(dtype).train() for _ in range(2))
        checkpointed.gradient_checkpointing_enable()
        assert checkpointed.is_gradient_checkpointing
        expected, found = self._gradients(plain), self._gradients(checkpointed)
        for name, gradient in expected.items():
            assert (gradient is None) == (found[name] is None), name
            if gradient is not None:
                assert torch.equal(gradient, found[name]), name
        for (name, before), (_, after) in zip(
            plain.named_buffers(), checkpointed.named_buffers(), strict=True
        ):
            assert torch.equal(before, after), name

    def test_trains_in_float64(self, model: Any) -> None:
        model.double().train()
        torch.manual_seed(7)
        output = model(**as_double(self.training_inputs(4)))
        loss = self.loss(output)
        assert loss.dtype == torch.float64
        loss.backward()

    # Graphs

    @pytest.mark.no_cover  # a tracer makes it twice as slow, and other tests run the same lines
    def test_exports_with_a_free_batch_size(self, model: Any) -> None:
        if not self.is_feature_model:
            return
        inputs = self.make_inputs(2)
        dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
        exported = torch.export.export(model, (), inputs, dynamic_shapes=self._dynamic(dynamic), strict=False)
        for batch in (2, 3):
            expected = tensors(self.run(model, batch=batch))
            found = tensors(exported.module()(**self.make_inputs(batch)))
            for name, reference in expected.items():
                assert relative_difference(found[name], reference) <= 1e-4, name

    def _dynamic(self, named: dict[str, Any]) -> dict[str, Any]:
        """Dynamic shapes by the names of forward's own signature, however decorators hide it."""
        parameters = inspect.signature(self.model_class.forward).parameters
        variadic = next((name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD), None)
        outer = {name: shape for name, shape in named.items() if name in parameters}
        inner = {name: shape for name, shape in named.items() if name not in parameters}
        return outer | ({variadic: inner} if variadic and inner else {})

    @pytest.mark.no_cover
    def test_compiles_as_one_graph(self, model: Any) -> None:
        self._check_compiled(model, "eager")

    @pytest.mark.slow
    def test_compiles_as_one_graph_with_inductor(self, model: Any) -> None:
        self._check_compiled(model, "inductor")

    def _check_compiled(self, model: Any, backend: str) -> None:
        if not self.is_feature_model:
            return
        torch.compiler.reset()
        expected = tensors(self.run(model))
        found = tensors(self.run(torch.compile(model, fullgraph=True, backend=backend)))
        for name, reference in expected.items():
            assert relative_difference(found[name], reference) <= 1e-4, name


class ClassifierChecks(ModelChecks):
    """Further checks of a `...ForVideoClassification`."""

    pretraining_class: ClassVar[Any]
    base_class: ClassVar[Any]
    objective_keys: ClassVar[tuple[str, ...]] = ()  # first parts of the keys that only the objective has
    head_keys: ClassVar[tuple[str, ...]] = ("classifier.weight", "classifier.bias")

    def training_inputs(self, batch: int) -> dict[str, Any]:
        return self.make_inputs(batch) | {"labels": torch.arange(batch) % self.make_config().num_labels}

    def test_starts_from_a_pretraining_folder_with_all_but_the_classifier(
        self, config: Any, tmp_path: Path
    ) -> None:
        pretrained = self.pretraining_class(copy.deepcopy(config))
        perturb(pretrained)
        pretrained.save_pretrained(tmp_path)
        classifier, info = self.model_class.from_pretrained(tmp_path, num_labels=7, output_loading_info=True)
        assert set(info["missing_keys"]) == set(self.head_keys)
        assert {key.split(".")[0] for key in info["unexpected_keys"]} <= set(self.objective_keys)
        assert not info["mismatched_keys"]
        assert classifier.classifier.out_features == 7
        backbone = self.base_class.from_pretrained(tmp_path).state_dict()
        for name, tensor in classifier.base_model.state_dict().items():
            assert torch.equal(tensor, backbone[name]), name

    def test_another_number_of_classes_is_refused_unless_asked(self, model: Any, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"classifier\.weight"):
            self.model_class.from_pretrained(tmp_path, num_labels=11)
        loaded = self.model_class.from_pretrained(tmp_path, num_labels=11, ignore_mismatched_sizes=True)
        assert loaded.classifier.out_features == 11

    def test_hard_and_one_hot_labels_give_one_loss(self, model: Any) -> None:
        inputs = self.training_inputs(3)
        hard = model(**inputs)
        labels = torch.nn.functional.one_hot(inputs["labels"], hard.logits.shape[-1]).float()
        torch.testing.assert_close(model(**inputs | {"labels": labels}).loss, hard.loss)
