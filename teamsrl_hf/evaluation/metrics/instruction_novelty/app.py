import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("instruction_novelty.py", module_type="measurement"))
