"""Which dataset each artifact of the image experiments is rendered from."""

ARTIFACTS = {
    "table2": "polymnist",
    "table2-ablations": "polymnist",
    "table2-sweep": "polymnist",
    "fig3": "polymnist",
    "table3": "biked_rendered",
    "fig4": "biked_rendered",
    "table3-biked": "biked",
    "fig4-biked": "biked",
}
