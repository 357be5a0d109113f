import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("instruction_diversity.py", module_type="measurement"))
