"""Makes transformers' processor classes work where torchvision is not installed; changes nothing where it
is.

transformers exports its video processor classes only beside torchvision, although the parts used here do
not need it. `ProcessorMixin` looks these names up in the transformers module, so they are put there. Every
file that defines a processor imports its base classes from here, which also takes this along to the Hub.
"""

from __future__ import annotations

import transformers
from transformers import processing_utils
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING, AutoVideoProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available
from transformers.video_processing_utils import BaseVideoProcessor, VideoProcessorMixin

__all__ = ["AutoVideoProcessor", "BaseVideoProcessor", "ProcessorMixin"]

if not is_torchvision_available():
    # `import transformers` and the module that ProcessorMixin looks into are two objects.
    for module in (transformers, processing_utils.transformers_module):
        module.BaseVideoProcessor = BaseVideoProcessor
        module.VideoProcessorMixin = VideoProcessorMixin
        module.AutoVideoProcessor = AutoVideoProcessor
        module.VIDEO_PROCESSOR_MAPPING = VIDEO_PROCESSOR_MAPPING
