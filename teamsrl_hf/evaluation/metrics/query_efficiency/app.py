import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("query_efficiency.py", module_type="measurement"))
