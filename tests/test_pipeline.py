from conftest import Project


def test_rows(finished: Project) -> None:
    from dasd_assets.summary import summary

    with finished.instance() as i:
        print(summary(i, finished.warehouse, finished.engines, finished.recipe))


def test_again(copy: Project) -> None:
    assert copy.run() == 0
    assert copy.fake.generated == []
