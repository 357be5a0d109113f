"""The dataset's evolution: in go seeds, a chooser and models, out come accepted rows and counted rejections."""
